import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { KVPages, kvAppend, kvGather, Tensor } from '../../../lib/index.js';
import { ggufBytes } from '../../../lib/io/index.js';
import {
  type ChannelOrder,
  cacheSamples,
  type Decoder,
  fitChannelOrder,
  load,
  perplexity,
} from '../../../lib/nn/index.js';
import { tinyModel } from '../models.js';
import { randomModel, randomNumbers } from '../random_model.js';
import { expectRefusal } from './refusals.js';

const text =
  'The little fox ran into the wood, and there it met an old bear who was very kind. '.repeat(3);

/** Any order that keeps pairs together. */
function randomOrder(decoder: Decoder, seed: number): ChannelOrder {
  const { headDim, valueDim, numKvHeads, rope } = decoder.config;
  const random = randomNumbers(seed);
  const samples = (heads: number, dim: number): Tensor<'f32'> =>
    new Tensor('f32', Float32Array.from({ length: heads * dim }, random), [1, heads, dim]);
  return fitChannelOrder(
    { keys: samples(numKvHeads, headDim), values: samples(numKvHeads, valueDim) },
    rope,
  );
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
  it('sorts pairs of keys over all heads, and values by head, by mean square', () => {
    const keys = new Tensor('f32', [1, 4, 0, 2, 9, 1, 1, 0, 3, 0, 8, 9], [1, 2, 6]);
    const values = new Tensor('f32', [1, -3, 2, 5, 0, -6], [1, 2, 3]);
    const half = fitChannelOrder({ keys, values }, { mode: 'half', rotaryDim: 4 });
    // Pairs (0, 2) and (1, 3); head 0: 1 and 20 of 103, head 1: 10 and 0 of 155; channels 4, 5: the rest.
    expect([...half.keys]).toEqual([1, 0, 3, 2, 4, 5]);
    expect(half.values.map((order) => [...order])).toEqual([
      [1, 2, 0],
      [2, 0, 1],
    ]);
    const pairs = fitChannelOrder({ keys, values }, { mode: 'interleaved', rotaryDim: 4 });
    expect([...pairs.keys]).toEqual([0, 1, 2, 3, 4, 5]);
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

  it('in another order predicts as it did, and as well or better from blocks', async () => {
    const samples = await cacheSamples(decoder, text.slice(0, 200));
    const channelOrders = samples.map((layer) => fitChannelOrder(layer, decoder.config.rope));
    const moved = await load(tinyModel, { activations: 'f32', channelOrders });
    const { loss } = await perplexity(decoder, text);
    const { loss: same } = await perplexity(moved, text);
    expect(Math.abs(same - loss)).toBeLessThan(1e-5);
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

  it('keys turned back do not depend on where their tokens stand', async () => {
    const ids = [5, 5, 5, 5, 5];
    const [first] = await cacheSamples(decoder, ids, { unrotated: true });
    const { keys } = first as typeof first & object;
    const row = keys.size / ids.length;
    // The first layer sees no other token.
    for (let i = row; i < keys.size; i++) {
      expect(keys.data[i]).toBeCloseTo(keys.data[i % row] as number, 4);
    }
  });
});
