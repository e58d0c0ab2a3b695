import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dequantize, KVPages, kvAppend, kvGather, rope, Tensor } from '../../../lib/index.js';
import { type GGUFTensorInput, ggufBytes, readGGUF } from '../../../lib/io/index.js';
import {
  type ChannelOrder,
  cacheSamples,
  type Decoder,
  fitChannelOrder,
  load,
  perplexity,
} from '../../../lib/nn/index.js';
import { openSource } from '../../../lib/nn/model_source.js';
import { storedMatrix, storedShape, storedVector } from '../../../lib/nn/stored_tensor.js';
import { examples, tinyModel } from '../models.js';
import { randomModel, randomNumbers } from '../random_model.js';
import { expectRefusal } from './refusals.js';

const heldOut = readFileSync(join(examples, 'train-tiny/heldout.txt'), 'utf8');
const text = heldOut.slice(0, 1500);

/** Any order that keeps pairs together. */
function randomOrder({ config }: Decoder, seed: number): ChannelOrder {
  const { headDim, valueDim, numKvHeads, rope } = config;
  const random = randomNumbers(seed);
  const shuffled = (count: number): number[] =>
    Array.from({ length: count }, (_, i) => ({ i, key: random() }))
      .sort((a, b) => a.key - b.key)
      .map(({ i }) => i);
  const half = rope.rotaryDim / 2;
  const keys = Int32Array.from({ length: headDim }, (_, i) => i);
  for (const [place, pair] of shuffled(half).entries()) {
    const [first, step] = rope.mode === 'half' ? [1, half] : [2, 1];
    keys[first * place] = first * pair;
    keys[first * place + step] = first * pair + step;
  }
  const values = Array.from({ length: numKvHeads }, () => Int32Array.from(shuffled(valueDim)));
  return { keys, values };
}

/** The example model with large channels in keys and values, in f32. */
function withOutliers(factor: number): Uint8Array {
  const { source, close } = openSource(tinyModel);
  const file = readGGUF(source);
  const isLarge = (channel: number): boolean => channel % 16 < 2;
  const tensors: GGUFTensorInput[] = [];
  for (const [name, tensor] of file.tensors) {
    const shape = [...storedShape(file, tensor)];
    if (shape.length === 1) {
      tensors.push({ name, shape, type: 'f32', data: storedVector(tensor).bytes });
      continue;
    }
    const values = dequantize(storedMatrix(file, tensor));
    const [, cols] = values.shape as [number, number];
    for (const [i, x] of values.data.entries()) {
      const [row, col] = [Math.floor(i / cols), i % cols];
      let by = 1;
      if (/attn_[kv]\./.test(name) && isLarge(row)) by = factor;
      if (/attn_q\./.test(name) && isLarge(row)) by = 1 / factor;
      if (/attn_output\./.test(name) && isLarge(col)) by = 1 / factor;
      values.data[i] = x * by;
    }
    tensors.push({ name, shape, type: 'f32', data: values.bytes });
  }
  const bytes = ggufBytes({ metadata: file.metadata, tensors });
  close();
  return bytes;
}

/** What a cache format loses: each channel's error by its own size, mean square over all channels. */
function channelError(x: Tensor<'f32'>, format: 'bfp4' | 'bfp8' | 'i4', values: boolean): number {
  const [tokens, heads, dim] = x.shape as [number, number, number];
  const pages = new KVPages({
    keyFormat: values ? 'f32' : format,
    valueFormat: format,
    numKvHeads: heads,
    keyDim: values ? 1 : dim,
    valueDim: values ? dim : 0,
    pageSize: 16,
    numPages: tokens / 16,
  });
  const slots = new Tensor(
    'i32',
    Int32Array.from({ length: tokens }, (_, t) => t),
    [tokens],
  );
  kvAppend(
    values ? Tensor.zeros('f32', [tokens, heads, 1]) : x,
    values ? x : undefined,
    slots,
    pages,
  );
  const back = kvGather(slots, pages);
  const y = (values ? back.v : back.k) as Tensor<'f32'>;
  const error = new Float64Array(heads * dim);
  const size = new Float64Array(heads * dim);
  for (const [i, value] of x.data.entries()) {
    const channel = i % (heads * dim);
    error[channel] = (error[channel] as number) + (value - (y.data[i] as number)) ** 2;
    size[channel] = (size[channel] as number) + value ** 2;
  }
  return Math.sqrt(error.reduce((sum, e, c) => sum + e / (size[c] as number), 0) / error.length);
}

function inOrder(x: Tensor<'f32'>, orders: readonly Int32Array[]): Tensor<'f32'> {
  const [, heads, dim] = x.shape as [number, number, number];
  const data = Float32Array.from(x.data, (_, i) => {
    const head = Math.floor(i / dim) % heads;
    return x.data[i - (i % dim) + ((orders[head] as Int32Array)[i % dim] as number)] as number;
  });
  return new Tensor('f32', data, x.shape);
}

describe('fitChannelOrder', () => {
  it.each(['half', 'interleaved'] as const)('%s: sorts pairs by falling mean square', (mode) => {
    // 20 pairs and 2 channels that are not rotated; every third pair is an outlier, one more than the other.
    const size = (pair: number): number => (pair % 3 === 0 ? 50 + pair / 10 : 1 + pair / 100);
    const pairOf = (c: number): number => (mode === 'half' ? c % 20 : Math.floor(c / 2));
    const sizes = Float32Array.from({ length: 42 }, (_, c) => (c < 40 ? size(pairOf(c)) : c));
    // Tokens of several sizes, so that it does not hang on how one is rounded.
    const tokens = Float32Array.from(
      { length: 30 * 42 },
      (_, i) => (sizes[i % 42] as number) * (1 + Math.floor(i / 42) / 7),
    );
    const keys = new Tensor('f32', tokens, [30, 1, 42]);
    const order = fitChannelOrder({ keys, values: keys }, { mode, rotaryDim: 40 });
    const pairs = [...Array(20).keys()].sort((a, b) => size(b) - size(a));
    const places = mode === 'half' ? [...pairs, ...pairs] : pairs.flatMap((pair) => [pair, pair]);
    expect([...order.keys].slice(0, 40).map(pairOf)).toEqual(places);
    expect([...order.keys].slice(40)).toEqual([41, 40]);
    const values = [...(order.values[0] as Int32Array)];
    expect(values.map((c) => sizes[c])).toEqual([...sizes].sort((a, b) => b - a));
  });

  it('leaves channels as they stand where sorting does not help: large queries at large keys', () => {
    const random = randomNumbers(3);
    const shape = [200, 1, 32];
    const size = (c: number): number => (c % 4 === 0 ? 3 : 1);
    const data = (): Float32Array =>
      Float32Array.from({ length: 200 * 32 }, (_, i) => random() * size(i % 32));
    const keys = new Tensor('f32', data(), shape);
    const rope = { mode: 'half', rotaryDim: 0 } as const;
    const queries = new Tensor(
      'f32',
      data().map((x, i) => x * size(i % 32) ** 4),
      shape,
    );
    const as = [...Array(32).keys()];
    expect([...fitChannelOrder({ keys, values: keys }, rope).keys]).not.toEqual(as);
    expect([...fitChannelOrder({ keys, values: keys, queries }, rope).keys]).toEqual(as);
  });

  it('is a permutation that keeps pairs, whatever the samples are', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 20 }),
        fc.integer(),
        fc.constantFrom('half' as const, 'interleaved' as const),
        (tokens, heads, dim, seed, mode) => {
          const random = randomNumbers(seed);
          const data = Float32Array.from({ length: tokens * heads * dim }, random);
          const x = new Tensor('f32', data, [tokens, heads, dim]);
          const rotaryDim = dim - (dim % 2);
          const { keys, values } = fitChannelOrder({ keys: x, values: x }, { mode, rotaryDim });
          for (const order of [keys, ...values]) {
            expect([...order].sort((a, b) => a - b)).toEqual([...order.keys()]);
          }
          for (let j = 0; j < rotaryDim / 2; j++) {
            const [a, b] = mode === 'half' ? [j, j + rotaryDim / 2] : [2 * j, 2 * j + 1];
            const distance = mode === 'half' ? rotaryDim / 2 : 1;
            expect((keys[b] as number) - (keys[a] as number)).toBe(distance);
          }
        },
      ),
    );
  });

  it.each([
    ['bfp4', 0.45],
    ['bfp8', 0.55],
    ['i4', 0.8],
  ] as const)(
    '%s: outliers side by side leave the other channels more than they had',
    (format, bound) => {
      // Every 16th channel is 20 times the others: each block of 16 has one.
      const random = randomNumbers(7);
      const [tokens, heads, dim] = [64, 2, 128];
      const data = Float32Array.from(
        { length: tokens * heads * dim },
        (_, i) => (random() + random() + random()) * (i % 16 === 5 ? 20 : 1),
      );
      const x = new Tensor('f32', data, [tokens, heads, dim]);
      const order = fitChannelOrder(
        { keys: x, values: x },
        { mode: 'interleaved', rotaryDim: 128 },
      );
      const sorted = channelError(inOrder(x, order.values), format, true);
      expect(sorted).toBeLessThan(bound * channelError(x, format, true));
      if (format === 'i4') return; // keys have scales of their own for each channel
      const keys = inOrder(x, [order.keys, order.keys]);
      expect(channelError(keys, format, false)).toBeLessThan(
        bound * channelError(x, format, false),
      );
    },
  );

  it('refuses what it cannot order', async () => {
    const x = Tensor.zeros('f32', [1, 1, 4]);
    const rope = { mode: 'half', rotaryDim: 4 } as const;
    const flat = Tensor.zeros('f32', [4]);
    await expectRefusal(
      () => fitChannelOrder({ keys: flat, values: x }, rope),
      'BL_INVALID_SHAPE',
      'keys',
    );
    await expectRefusal(
      () => fitChannelOrder({ keys: x, values: flat }, rope),
      'BL_INVALID_SHAPE',
      'values',
    );
    for (const rotaryDim of [3, 6, -2, 1.5]) {
      await expectRefusal(
        () => fitChannelOrder({ keys: x, values: x }, { ...rope, rotaryDim }),
        'BL_OUT_OF_RANGE',
        'rotaryDim',
      );
    }
    const bad = new Tensor('f32', [1, Number.NaN, 0, 0], [1, 1, 4]);
    await expectRefusal(
      () => fitChannelOrder({ keys: bad, values: x }, rope),
      'BL_NON_FINITE',
      'keys[1]',
    );
  });
});

describe('load with channelOrders', () => {
  it.each([
    ['llama', { architecture: 'llama' }],
    ['llama with frequency factors', { architecture: 'llama', freqFactors: true }],
    ['llama, positions divided', { architecture: 'llama', linearFactor: 4 }],
    ['qwen2 (biases, halves)', { architecture: 'qwen2' }],
    ['qwen3 (norms of heads)', { architecture: 'qwen3' }],
  ] as const)('%s: gives the logits that it gave', async (_, options) => {
    const file = ggufBytes(randomModel(options).content);
    const plain = await load(file, { activations: 'f32' });
    const channelOrders = [randomOrder(plain, 1), randomOrder(plain, 2)];
    const ids = Array.from({ length: 40 }, (_, i) => (i * 7) % 50);
    const expected = plain.forward(ids, { logits: 'all' });
    const moved = await load(file, { activations: 'f32', channelOrders });
    const actual = moved.forward(ids, { logits: 'all' });
    let largest = 0;
    let difference = 0;
    for (const [i, x] of expected.data.entries()) {
      largest = Math.max(largest, Math.abs(x));
      difference = Math.max(difference, Math.abs(x - (actual.data[i] as number)));
    }
    // Sums in another order, angles off by 6e-8 of themselves.
    expect(difference).toBeLessThan(5e-5 * largest);
    const key = channelOrders[0]?.keys as Int32Array;
    expect([...key].some((channel, place) => channel !== place)).toBe(true);
    plain.dispose();
    moved.dispose();
  });

  it('refuses orders that are none', async () => {
    const file = ggufBytes(randomModel().content);
    const decoder = await load(file);
    const good = randomOrder(decoder, 3);
    decoder.dispose();
    const refused = (orders: unknown[], code: string, message: string): Promise<void> =>
      expectRefusal(() => load(file, { channelOrders: orders as ChannelOrder[] }), code, message);
    await refused([good], 'BL_INVALID_SHAPE', 'channelOrders.length is 1, expected 2');
    await refused([good, { ...good, keys: new Int32Array(3) }], 'BL_INVALID_SHAPE', '[1].keys');
    await refused([{ ...good, values: [] }, good], 'BL_INVALID_SHAPE', 'values.length is 0');
    const twice = Int32Array.from(good.keys).fill(0, 0, 2);
    await refused([{ ...good, keys: twice }, good], 'BL_INVALID_ARGUMENT', 'each of 0 to 15 once');
    const apart = Int32Array.from(good.keys);
    [apart[1], apart[3]] = [apart[3] as number, apart[1] as number];
    await refused([{ ...good, keys: apart }, good], 'BL_INVALID_ARGUMENT', 'a pair');
  });
});

describe('the example model', () => {
  let decoder: Decoder;
  beforeAll(async () => {
    decoder = await load(tinyModel, { activations: 'f32' });
  });
  afterAll(() => decoder.dispose());

  it('in another order predicts as it did', async () => {
    const channelOrders = Array.from({ length: 6 }, (_, i) => randomOrder(decoder, i));
    const moved = await load(tinyModel, { activations: 'f32', channelOrders });
    const { loss } = await perplexity(decoder, text);
    const { loss: same } = await perplexity(moved, text);
    expect(Math.abs(same - loss)).toBeLessThan(1e-5);
    moved.dispose();
  });

  it('with outlier channels: blocks of 4 bits predict better in the fitted order', async () => {
    // Every 8th pair of the keys times 16 and the queries' by 1/16, values and output alike: the same function.
    const file = withOutliers(16);
    const plain = await load(file, { activations: 'f32' });
    const samples = cacheSamples(plain, heldOut.slice(8000, 9500));
    const channelOrders = samples.map((layer) => fitChannelOrder(layer, plain.config.rope));
    const moved = await load(file, { activations: 'f32', channelOrders });
    const lossOf = async (model: Decoder, format?: 'bfp4'): Promise<number> =>
      (await perplexity(model, text, format && { step: 16, cache: { format, recent: 0 } })).loss;
    const exact = await lossOf(plain);
    expect(Math.abs((await lossOf(moved)) - exact)).toBeLessThan(1e-4);
    const before = (await lossOf(plain, 'bfp4')) - exact;
    const after = (await lossOf(moved, 'bfp4')) - exact;
    // 2.04 and 1.49 nats: heads of 32 channels are two blocks, of which one is rid of its outliers.
    expect(after).toBeLessThan(0.8 * before);
    plain.dispose();
    moved.dispose();
  });

  it('cacheSamples refuses a text it has no room for, or without tokens', async () => {
    await expectRefusal(() => cacheSamples(decoder, []), 'BL_INVALID_ARGUMENT', 'no tokens');
    const long = new Array<number>(decoder.contextLength + 1).fill(1);
    await expectRefusal(() => cacheSamples(decoder, long), 'BL_OUT_OF_RANGE', 'at most');
    const bare = await load(ggufBytes(randomModel().content));
    await expectRefusal(() => cacheSamples(bare, 'text'), 'BL_NOT_FOUND', 'tokenizer');
    bare.dispose();
  });

  it('samples are those of the plain cache, before rotation', async () => {
    const ids = [...(decoder.tokenizer?.encode(text.slice(0, 60)) ?? [])];
    const samples = cacheSamples(decoder, ids);
    const cache = decoder.createCache();
    decoder.forward(ids, { cache }).dispose();
    const { mode, theta, rotaryDim } = decoder.config.rope;
    const positions = new Tensor('i32', Int32Array.from(ids.keys()), [ids.length]);
    for (const [i, { keys, values, queries }] of samples.entries()) {
      const layer = cache.layer(i);
      expect(rope(keys, positions, { mode, theta, rotaryDim }).data).toEqual(
        layer.keys.data.subarray(0, keys.size),
      );
      expect(values.data).toEqual(layer.values.data.subarray(0, values.size));
      expect(queries?.shape).toEqual([ids.length, decoder.config.numHeads, keys.shape[2]]);
      expect(queries?.data.some((x) => x !== 0)).toBe(true);
    }
    cache.dispose();
  });
});
