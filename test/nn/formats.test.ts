import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  dequantize,
  type Format,
  type FormatInfo,
  formats,
  type QuantizedTensor,
} from '../../lib/index.js';
import { ggufBytes, mapFile, readGGUF } from '../../lib/io/index.js';
import {
  type DecoderLayer,
  load,
  type MLP,
  type Progress,
  perplexity,
  quantizeModel,
} from '../../lib/nn/index.js';
import { examples, tinyModel } from './models.js';
import { randomModel } from './random_model.js';

const code = (value: string) => expect.objectContaining({ code: value });

/** A table of 2^bits values in [-1, 1], denser around 0, for the formats that want one; cbs2: that and another. */
function codebookFor(format: Format): { codebook?: Float32Array } {
  const { kind, bits } = formats[format];
  if (kind === 'codebooks' && bits === 2) {
    return { codebook: Float32Array.of(-1, -0.3, 0.3, 1, -1, 0, 0.5, 1) };
  }
  if (kind !== 'codebook') return {};
  const count = 2 ** bits;
  return {
    codebook: Float32Array.from({ length: count }, (_, i) => {
      const x = (2 * i) / (count - 1) - 1;
      return 0.5 * x + 0.5 * x ** 3;
    }),
  };
}

// Effective bits of GGUF's block formats.
const blockBits: Partial<Record<Format, number>> = {
  f32: 20,
  f16: 11,
  bf16: 8,
  q8_0: 8,
  q6_k: 6,
  q5_0: 5,
  q5_1: 5,
  q5_k: 5,
  q4_0: 4,
  q4_1: 4,
  q4_k: 4,
  iq4_nl: 4,
  q3_k: 3,
  q2_k: 2,
  tq1_0: 1.5,
  tq2_0: 1.5,
  mxfp4: 3,
  nvfp4: 3,
};

/**
 * Bits of an even quantizer with a format's error. A float element with y mantissa bits is wrong by 0.21 * 2^-y of
 * a weight (even in a binade, 1 / sqrt(12) of a step that is 1 / 1.39 of the weight on average): y + 2 bits. A scale
 * that is a power of two may be twice as large as one that fits: a bit less.
 */
function effectiveBits({ kind, bits }: FormatInfo, format: Format): number {
  const float = /^e\dm(\d)$/.exec(kind);
  if (float) return Number(float[1]) + 2;
  if (kind === 'bfp' || kind === 'mxint8') return bits - 1;
  return blockBits[format] ?? (kind === 'ternary' ? 1.5 : bits);
}

describe('every format on a random model', () => {
  const bytes = ggufBytes(
    randomModel({ hidden: 256, intermediate: 256, layers: 1, vocab: 16 }).content,
  );
  const tokens = [1, 2, 3, 5, 8];
  let expected: number[];
  beforeAll(async () => {
    const decoder = await load(bytes, { activations: 'f32' });
    expected = decoder.forward(tokens, { logits: 'all' }).toArray();
    decoder.dispose();
  });

  // Weights are even in [-a, a]: a step of 2a / 2^bits is a relative error of 2^-bits of their standard deviation.
  // Seven matrices one behind the other, and a norm that spreads what it gets, make up to 5.5 of it (fp4, the
  // least even table); scales in bf16 add 2^-9 of each weight.
  const bound = (info: FormatInfo, format: Format): number => {
    const bits = effectiveBits(info, format);
    return 7 * 2 ** -bits + (format.endsWith('bf16') ? 0.01 : 0.002);
  };

  it.each(Object.keys(formats) as Format[])('%s', async (format) => {
    const decoder = await load(bytes, { format, ...codebookFor(format) });
    expect(((decoder.parts.layers[0] as DecoderLayer).mlp as MLP).up.weight.format).toBe(format);
    const actual = decoder.forward(tokens, { logits: 'all' }).toArray();
    decoder.dispose();
    expect(actual.every(Number.isFinite)).toBe(true);
    const square = (values: number[]) => values.reduce((sum, value) => sum + value * value, 0);
    const error = Math.sqrt(
      square(actual.map((value, i) => value - (expected[i] as number))) / square(expected),
    );
    expect(error).toBeLessThan(bound(formats[format], format));
  });
});

describe('perplexity of examples/tiny.gguf', () => {
  const text = readFileSync(join(examples, 'train-tiny/heldout.txt'), 'utf8').slice(0, 2500);
  let base: number;
  beforeAll(async () => {
    const decoder = await load(tinyModel, { activations: 'f32' });
    const result = await perplexity(decoder, text, { window: 256 });
    base = result.loss;
    expect(result.perplexity).toBeCloseTo(Math.exp(result.loss));
    expect(result.tokens).toBeGreaterThan(400);
    decoder.dispose();
  });

  // Bounds that the README of lib/nn states, in nats per token above the f32 model.
  it.each([
    ['f16', 1e-3],
    ['q8_0', 2e-3],
    ['u6_g64', 5e-3],
    ['q5_0', 1e-2],
    ['q4_0', 2e-2],
    ['u4_g128', 3e-2],
    ['nf4_g64', 3e-2],
    ['u3_g64', 0.1],
  ] as [Format, number][])('%s loses at most %f nats', async (format, most) => {
    const decoder = await load(tinyModel, { format });
    const { loss } = await perplexity(decoder, text, { window: 256 });
    expect(loss - base).toBeLessThan(most);
    decoder.dispose();
  });

  it('refuses what can not be scored', async () => {
    const decoder = await load(tinyModel);
    await expect(perplexity(decoder, '')).rejects.toMatchObject({ code: 'BL_INVALID_ARGUMENT' });
    await expect(perplexity(decoder, text, { window: 1 })).rejects.toMatchObject({
      code: 'BL_OUT_OF_RANGE',
    });
    decoder.dispose();
  });
});

describe('quantizeModel', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'bitloom-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it.each([
    'q4_0',
    'u4_g128',
    'i5z_g64_bf16',
    'cb3_g64',
    'cbs2_g64',
    'cbs3_g128',
    'lut4_row',
    't2_row',
    'mxfp4',
    'bfp6_g16',
    'nvfp4_g16',
  ] as Format[])('a file in %s computes what quantizing on load does', async (format) => {
    const out = join(folder, `${format}.gguf`);
    const table = codebookFor(format);
    const progress: Progress[] = [];
    await quantizeModel(tinyModel, out, format, {
      ...table,
      onProgress: (step) => progress.push(step),
    });
    expect(progress.at(-1)).toMatchObject({ done: progress.at(-1)?.total });
    const fromFile = await load(out);
    const onLoad = await load(tinyModel, { format, ...table });
    expect(fromFile.parts.embedding.format).toBe(format);
    expect(fromFile.forward([1, 2, 3]).toArray()).toEqual(onLoad.forward([1, 2, 3]).toArray());
    expect(fromFile.generate('Once', { maxTokens: 5 }).promptTokens.length).toBeGreaterThan(1);
    fromFile.dispose();
    onLoad.dispose();
  });

  it('keeps tensor scales in the file, which come from the matrix that was quantized', async () => {
    const out = join(folder, 'scales.gguf');
    const again = join(folder, 'scales-again.gguf');
    await quantizeModel(tinyModel, out, 'nvfp4_g16');
    await quantizeModel(out, again, 'nvfp4_g16');
    const models = await Promise.all([load(tinyModel), load(out), load(again)]);
    const [plain, stored, copied] = models.map((model) => model.parts.embedding);
    const largest = dequantize(plain as QuantizedTensor).data.reduce(
      (most, value) => Math.max(most, Math.abs(value)),
      0,
    );
    expect(stored?.tensorScale).toBe(Math.fround(largest / (6 * 448)));
    expect(copied?.tensorScale).toBe(stored?.tensorScale);
    expect(copied?.bytes).toEqual(stored?.bytes);
    for (const model of models) model.dispose();

    const source = mapFile(out);
    const file = readGGUF(source);
    const { metadata, types } = file;
    const tensors = [...file.tensors.values()].map((tensor) => ({
      name: tensor.name,
      type: tensor.type,
      shape: tensor.shape,
      data: tensor.data(),
    }));
    for (const bad of [0, -1, Number.NaN, 'two']) {
      const changed = new Map(metadata).set('bitloom.tensor_scale.token_embd.weight', bad);
      const kinds = new Map(types).set(
        'bitloom.tensor_scale.token_embd.weight',
        typeof bad === 'string' ? 'string' : 'f32',
      );
      const bytes = ggufBytes({ metadata: changed, types: kinds, tensors });
      await expect(load(bytes)).rejects.toMatchObject({ code: 'BL_INVALID_FILE' });
    }
    source.dispose();
  });

  it('quantizes a file in a format of bitloom once more', async () => {
    const first = join(folder, 'first.gguf');
    const second = join(folder, 'second.gguf');
    await quantizeModel(tinyModel, first, 'u8_g32');
    await quantizeModel(first, second, 'q4_0');
    const source = mapFile(second);
    const file = readGGUF(source);
    expect([...file.metadata.keys()].filter((key) => key.startsWith('bitloom.'))).toEqual([]);
    expect(file.metadata.get('general.file_type')).toBe(2);
    expect(file.tensors.get('blk.0.ffn_up.weight')).toMatchObject({
      type: 'q4_0',
      shape: [352, 128],
    });
    expect(file.tensors.get('output_norm.weight')?.type).toBe('f32');
    source.dispose();
  });

  it('keeps matrices whose rows do not fit, and embeddings in a format of their own', async () => {
    const out = join(folder, 'mixed.gguf');
    await quantizeModel(
      ggufBytes(randomModel({ hidden: 64, intermediate: 80 }).content),
      out,
      'q4_0',
      {
        embedding: 'q8_0',
      },
    );
    const decoder = await load(out);
    expect(decoder.parts.embedding.format).toBe('q8_0');
    expect(((decoder.parts.layers[0] as DecoderLayer).mlp as MLP).up.weight.format).toBe('q4_0');
    expect(((decoder.parts.layers[0] as DecoderLayer).mlp as MLP).down.weight.format).toBe('f32');
    decoder.dispose();
  });

  it('says what is wrong, and leaves no file', async () => {
    const out = join(folder, 'never.gguf');
    await expect(quantizeModel(tinyModel, out, 'q9' as Format)).rejects.toMatchObject({
      code: 'BL_INVALID_FORMAT',
    });
    await expect(quantizeModel(tinyModel, out, 'cb4_g64')).rejects.toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
    });
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(quantizeModel(tinyModel, out, 'q4_0', { signal })).rejects.toThrow('enough');
    expect(() => mapFile(out)).toThrow(code('BL_NOT_FOUND'));
  });
});
