import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Format } from '../../lib/index.js';
import { type GGUFValue, ggufBytes, memorySource } from '../../lib/io/index.js';
import { load, type MLP, type Progress } from '../../lib/nn/index.js';
import { tinyModel } from './models.js';
import { type RandomModelOptions, randomModel } from './random_model.js';

type Content = ReturnType<typeof randomModel>['content'];

/** Loads a random model after `change`. */
async function loadChanged(change: (content: Content) => void, options?: RandomModelOptions) {
  const { content } = randomModel(options);
  change(content);
  return load(ggufBytes(content));
}

const set = (key: string, value: GGUFValue) => (content: Content) => {
  content.metadata.set(key, value);
};
const remove = (name: string) => (content: Content) => {
  content.metadata.delete(name);
  content.tensors = content.tensors.filter((tensor) => tensor.name !== name);
};
const reshape =
  (name: string, type: string, shape: number[], bytes: number) => (content: Content) => {
    const at = content.tensors.findIndex((tensor) => tensor.name === name);
    const input = { name, type, shape, data: new Uint8Array(bytes) };
    if (at < 0) content.tensors.push(input);
    else content.tensors[at] = input;
  };

describe('load refuses', () => {
  it.each<[string, (content: Content) => void, string, string]>([
    [
      'another architecture',
      set('general.architecture', 'mamba'),
      'BL_UNSUPPORTED',
      'load: architecture is "mamba", expected one of llama, mistral, qwen2, qwen3',
    ],
    [
      'an architecture that is a method of objects',
      set('general.architecture', 'toString'),
      'BL_UNSUPPORTED',
      'toString',
    ],
    [
      'a file without architecture',
      remove('general.architecture'),
      'BL_INVALID_FILE',
      'general.architecture is missing',
    ],
    [
      '0 heads',
      set('llama.attention.head_count', 0),
      'BL_INVALID_FILE',
      'metadata llama.attention.head_count is 0, expected a whole number from 1',
    ],
    [
      'heads that do not divide',
      set('llama.attention.head_count', 5),
      'BL_INVALID_FILE',
      'head_count is 5, expected a multiple of 2 (= attention.head_count_kv)',
    ],
    [
      'more kv heads than heads',
      set('llama.attention.head_count_kv', 8),
      'BL_INVALID_FILE',
      'expected a multiple of 8',
    ],
    [
      'heads per layer',
      set('llama.attention.head_count', [4, 4]),
      'BL_INVALID_FILE',
      'is an array of 2',
    ],
    [
      'a hidden size that heads do not divide',
      set('llama.embedding_length', 63),
      'BL_INVALID_FILE',
      'metadata llama.embedding_length is 63, expected a multiple of 4',
    ],
    [
      'another hidden size',
      set('llama.embedding_length', 128),
      'BL_INVALID_FILE',
      'tensor token_embd.weight has shape [50,64], expected [50,128]',
    ],
    ['no blocks', set('llama.block_count', 0), 'BL_INVALID_FILE', 'llama.block_count is 0'],
    [
      'more blocks than tensors',
      set('llama.block_count', 4096),
      'BL_INVALID_FILE',
      'but the file has 20 tensors',
    ],
    [
      'a block that is not there',
      set('llama.block_count', 3),
      'BL_INVALID_FILE',
      'tensor blk.2.attn_q.weight is missing, expected shape [64,64] (= [heads * key_length, embedding_length])',
    ],
    [
      'blocks that nothing uses',
      set('llama.block_count', 1),
      'BL_UNSUPPORTED',
      'tensor blk.1.attn_norm.weight is none that this architecture uses',
    ],
    [
      'another vocabulary in the metadata',
      set('llama.vocab_size', 51),
      'BL_INVALID_FILE',
      'llama.vocab_size is 51, expected 50',
    ],
    [
      'another vocabulary in the tokenizer',
      set('tokenizer.ggml.tokens', ['a', 'b']),
      'BL_INVALID_FILE',
      'tokenizer.ggml.tokens has 2 tokens, expected 50',
    ],
    ['an unknown tokenizer', set('tokenizer.ggml.model', 'bert'), 'BL_UNSUPPORTED', 'bert'],
    [
      'an odd rotary dimension',
      set('llama.rope.dimension_count', 15),
      'BL_INVALID_FILE',
      'is 15, expected an even number',
    ],
    [
      'a rotary dimension beyond the head',
      set('llama.rope.dimension_count', 18),
      'BL_INVALID_FILE',
      'expected a whole number from 2 to 16',
    ],
    [
      'unknown rope scaling',
      set('llama.rope.scaling.type', 'longrope'),
      'BL_UNSUPPORTED',
      'rope.scaling.type is "longrope"',
    ],
    [
      'experts of which none is used',
      set('llama.expert_count', 8),
      'BL_INVALID_FILE',
      'llama.expert_used_count is missing, expected a whole number from 1 to 8',
    ],
    [
      'a negative epsilon',
      set('llama.attention.layer_norm_rms_epsilon', -1),
      'BL_INVALID_FILE',
      'expected a number from 0 to 1',
    ],
    [
      'no embedding',
      remove('token_embd.weight'),
      'BL_INVALID_FILE',
      'tensor token_embd.weight is missing',
    ],
    [
      'a missing norm',
      remove('blk.1.ffn_norm.weight'),
      'BL_INVALID_FILE',
      'tensor blk.1.ffn_norm.weight is missing',
    ],
    [
      'a misshapen matrix',
      reshape('blk.0.ffn_up.weight', 'f32', [96, 32], 96 * 32 * 4),
      'BL_INVALID_FILE',
      'tensor blk.0.ffn_up.weight has shape [96,32], expected [96,64]',
    ],
    [
      'a misshapen bias',
      reshape('blk.0.attn_q.bias', 'f32', [63], 252),
      'BL_INVALID_FILE',
      'tensor blk.0.attn_q.bias has shape [63], expected [64]',
    ],
    [
      'a matrix of integers',
      reshape('blk.0.ffn_up.weight', 'i32', [96, 64], 96 * 64 * 4),
      'BL_UNSUPPORTED',
      'tensor blk.0.ffn_up.weight has type i32',
    ],
    [
      'a quantized norm',
      reshape('output_norm.weight', 'q8_0', [64], 68),
      'BL_UNSUPPORTED',
      'tensor output_norm.weight has type q8_0, expected f32, f16 or bf16',
    ],
    [
      'a tensor that the architecture does not have',
      reshape('blk.0.attn_sinks.weight', 'f32', [4], 16),
      'BL_UNSUPPORTED',
      'blk.0.attn_sinks.weight is none',
    ],
    [
      'an unknown stored format',
      set('bitloom.format.blk.0.ffn_up.weight', 'u9'),
      'BL_UNSUPPORTED',
      'is "u9", expected a weight format',
    ],
    [
      'a stored format without shape',
      set('bitloom.format.blk.0.ffn_up.weight', 'u4_g32'),
      'BL_INVALID_FILE',
      'bitloom.shape.blk.0.ffn_up.weight is []',
    ],
  ])('%s', async (_, change, expectedCode, message) => {
    const result = loadChanged(change);
    await expect(result).rejects.toMatchObject({ code: expectedCode });
    await expect(result).rejects.toThrow(message);
  });

  it('a stored matrix of another size, or without its table', async () => {
    const stored = (format: Format, shape: number[], bytes: number) => (content: Content) => {
      const name = 'blk.0.ffn_up.weight';
      set(`bitloom.format.${name}`, format)(content);
      set(`bitloom.shape.${name}`, shape)(content);
      reshape(name, 'i8', [bytes], bytes)(content);
    };
    await expect(loadChanged(stored('u4_g32', [96, 64], 100))).rejects.toThrow(
      'tensor blk.0.ffn_up.weight has 100 bytes, expected 3456 (u4_g32 [96, 64])',
    );
    await expect(loadChanged(stored('cb4_g32', [96, 64], 3456))).rejects.toThrow(
      'codebook has 0 entries',
    );
    await expect(loadChanged(stored('u4_g32', [96, 65], 3456))).rejects.toThrow('expected [96,64]');
    await expect(loadChanged(stored('u4_g32', [2 ** 52, 64], 3456))).rejects.toMatchObject({
      code: 'BL_INVALID_FILE',
    });
  });

  it('options that can not be', async () => {
    await expect(load(tinyModel, { format: 'q9' as Format })).rejects.toMatchObject({
      code: 'BL_INVALID_FORMAT',
    });
    await expect(load(tinyModel, { activations: 'i4' as 'i8' })).rejects.toThrow(
      'expected auto, f32 or i8',
    );
    await expect(load(tinyModel, { threads: 0 })).rejects.toThrow(
      'load: threads is 0, expected 1 to 256',
    );
    await expect(load(tinyModel, { contextLength: 513 })).rejects.toThrow(
      'contextLength is 513, expected 1 to 512 (= config.contextLength)',
    );
    await expect(load(5 as unknown as string)).rejects.toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
    });
    await expect(load('/no/such/file.gguf')).rejects.toMatchObject({ code: 'BL_NOT_FOUND' });
    await expect(
      load(tinyModel, { format: 'u4_g32', signal: AbortSignal.abort(new Error('no')) }),
    ).rejects.toThrow('no');
  });

  it('any value of any number in the metadata, without a crash', async () => {
    const keys = [...randomModel().content.metadata.keys()].slice(1);
    const value = fc.oneof(
      fc.integer({ min: -(2 ** 31), max: 2 ** 32 - 1 }),
      fc.double(),
      fc.constantFrom(0, 1, 2, 2 ** 24, 'x'),
    );
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...keys), value, async (key, changed) => {
        try {
          const decoder = await loadChanged(set(key, changed));
          decoder.forward([1]);
          decoder.dispose();
        } catch (error) {
          expect((error as { code: string }).code).toMatch(/^BL_(INVALID_FILE|UNSUPPORTED)$/);
        }
      }),
      { numRuns: 150 },
    );
  });
});

describe('load', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'bitloom-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('takes paths, bytes, array buffers and sources alike', async () => {
    const bytes = ggufBytes(randomModel().content);
    const path = join(folder, 'model.gguf');
    writeFileSync(path, bytes);
    const source = memorySource(bytes);
    const buffer = bytes.slice().buffer;
    const results: number[][] = [];
    for (const from of [path, bytes, buffer, source]) {
      const decoder = await load(from);
      results.push(decoder.forward([1, 2, 3]).toArray());
      decoder.dispose();
    }
    for (const result of results) expect(result).toEqual(results[0]);
    // The caller's source is still the caller's.
    expect(source.bytes(0, 4)).toHaveLength(4);
    source.dispose();
  });

  it('uses the weights where they lie', async () => {
    const bytes = ggufBytes(randomModel().content);
    const decoder = await load(bytes);
    for (const layer of decoder.parts.layers)
      expect((layer.mlp as MLP).up.weight.bytes.buffer).toBe(bytes.buffer);
    expect(decoder.parts.output.weight).toBe(decoder.parts.embedding);
    decoder.dispose();
  });

  it('tells its progress, also when it quantizes', async () => {
    const steps: Progress[] = [];
    const decoder = await load(tinyModel, {
      format: 'u4_g64',
      method: 'mse',
      onProgress: (step) => steps.push(step),
    });
    expect(steps).toHaveLength(1 + 6 * 7);
    expect(steps.at(-1)).toMatchObject({ done: 1236992, total: 1236992 });
    expect(decoder.parts.embedding.format).toBe('u4_g64');
    decoder.dispose();
  });

  it('leaves the event loop alive while it quantizes', async () => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    const decoder = await load(tinyModel, { format: 'u4_g64', method: 'mse' });
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(1);
    decoder.dispose();
  });

  it('a file that shrinks while it is mapped gives an error, not a crash', async () => {
    const path = join(folder, 'shrinks.gguf');
    writeFileSync(path, ggufBytes(randomModel({ hidden: 128, intermediate: 512 }).content));
    const decoder = await load(path);
    decoder.forward([1]);
    truncateSync(path, 8192);
    expect(() => decoder.forward([1])).toThrow(
      expect.objectContaining({ code: 'BL_FILE_CHANGED' }),
    );
    decoder.dispose();
  });
});
