import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Isa, machine, Tensor } from '../../lib/index.js';
import { ggufBytes } from '../../lib/io/index.js';
import { type Decoder, KVCache, load } from '../../lib/nn/index.js';
import { tinyModel } from './models.js';
import { randomModel } from './random_model.js';

/** Ids that follow no pattern, below `vocab`. */
function ids(count: number, vocab = 1000): number[] {
  return Array.from({ length: count }, (_, i) => (i * 7919 + 13) % vocab);
}

/** Root of the mean square difference. */
function rms(actual: readonly number[], expected: readonly number[]): number {
  const squares = expected.map((value, i) => (value - (actual[i] as number)) ** 2);
  return Math.sqrt(squares.reduce((sum, square) => sum + square, 0) / squares.length);
}

const code = (value: string) => expect.objectContaining({ code: value });

describe('Decoder over examples/tiny.gguf', () => {
  let decoder: Decoder;
  beforeAll(async () => {
    decoder = await load(tinyModel);
  });
  afterAll(() => decoder.dispose());

  // One query takes its scores in another order than many do. With activations in f32 that is all; in i8 a value may
  // round to the step beside (1/127 of the largest of its group), which later layers see.
  it.each([
    ['f32', 1e-5],
    ['i8', 0.1],
  ] as const)(
    'a prompt at once, in pieces and token by token agree (%s within %f)',
    async (activations, bound) => {
      const model = await load(tinyModel, { activations });
      const tokens = ids(300);
      const whole = model.forward(tokens).toArray();
      const cache = model.createCache();
      model.forward(tokens.slice(0, 5), { cache });
      model.forward(tokens.slice(5, 299), { cache });
      expect(rms(model.forward(tokens.slice(299), { cache }).toArray(), whole)).toBeLessThan(bound);
      cache.rewind(280);
      let last: number[] = [];
      for (const id of tokens.slice(280)) last = model.forward([id], { cache }).toArray();
      expect(rms(last, whole)).toBeLessThan(bound);
      model.dispose();
    },
  );

  // With activations in int8, 300 rows of the last matrix may be multiplied by tiles and one row not: two roundings.
  it('logits of all tokens and of the last one agree: with f32 activations to the bit, else closely', async () => {
    const tokens = ids(300);
    const exact = await load(tinyModel, { activations: 'f32' });
    const exactAll = exact.forward(tokens, { logits: 'all' });
    expect(exactAll.shape).toEqual([300, 1024]);
    expect(exact.forward(tokens).toArray()).toEqual(exactAll.slice(299, 300).toArray());
    exact.dispose();
    const all = decoder.forward(tokens, { logits: 'all' }).slice(299, 300).toArray();
    const last = decoder.forward(tokens).toArray();
    expect(rms(last, all)).toBeLessThan(0.03 * rms(all, new Array(1024).fill(0)));
  });

  it('async equals sync', async () => {
    const tokens = ids(300);
    const sync = decoder.forward(tokens).toArray();
    expect((await decoder.forwardAsync(tokens)).toArray()).toEqual(sync);
    const [a, b] = await Promise.all([decoder.forwardAsync(tokens), decoder.forwardAsync([1, 2])]);
    expect(a.toArray()).toEqual(sync);
    expect(b.toArray()).toEqual(decoder.forward([1, 2]).toArray());
  });

  it('rewinds', () => {
    const cache = decoder.createCache();
    const first = decoder.forward([5, 6, 7], { cache }).toArray();
    decoder.forward([8, 9], { cache });
    cache.rewind(2);
    expect(decoder.forward([7], { cache }).toArray()).toEqual(first);
    expect(() => cache.rewind(4)).toThrow(code('BL_OUT_OF_RANGE'));
    cache.dispose();
  });

  it('writes to out', () => {
    const out = Tensor.zeros('f32', [1024]);
    expect(decoder.forward([1, 2], { out })).toBe(out);
    expect(out.toArray()).toEqual(decoder.forward([1, 2]).toArray());
    const small = Tensor.zeros('f32', [1023]);
    expect(() => decoder.forward([1], { out: small })).toThrow(
      'Decoder: out is f32 [1023], expected contiguous f32 [1024]',
    );
  });

  it('a cache in f16 stays close', async () => {
    const model = await load(tinyModel, { activations: 'f32' });
    const tokens = ids(100);
    const cache = model.createCache({ dtype: 'f16' });
    const half = model.forward(tokens, { cache }).toArray();
    // Keys and values lose 2^-12 of their size; logits reach 20.
    expect(rms(half, model.forward(tokens).toArray())).toBeLessThan(5e-3);
    model.dispose();
  });

  it('refuses what is out of range, and does nothing then', () => {
    const cache = decoder.createCache({ capacity: 4 });
    decoder.forward([1, 2], { cache });
    expect(() => decoder.forward([3, 4, 5], { cache })).toThrow(
      'KVCache: 2 tokens and 3 more exceed the context of 4',
    );
    expect(() => decoder.forward([1024], { cache })).toThrow(
      'Decoder: tokens[0] is 1024, expected 0 to 1023',
    );
    expect(() => decoder.forward([1, -1], { cache })).toThrow(code('BL_OUT_OF_RANGE'));
    expect(() => decoder.forward([0.5], { cache })).toThrow(code('BL_OUT_OF_RANGE'));
    expect(() => decoder.forward([], { cache })).toThrow(code('BL_INVALID_ARGUMENT'));
    expect(() => decoder.forward([1], { logits: 'none' as 'all' })).toThrow(
      code('BL_INVALID_ARGUMENT'),
    );
    expect(() => decoder.forward(ids(513))).toThrow(code('BL_OUT_OF_RANGE'));
    expect(() => decoder.createCache({ capacity: 1e9 })).toThrow(code('BL_OUT_OF_RANGE'));
    expect(cache.length).toBe(2);
    decoder.forward([3, 4], { cache });
    expect(() => decoder.forward([5], { cache })).toThrow(code('BL_OUT_OF_RANGE'));
  });

  it('refuses a cache of another shape or one in use', async () => {
    const other = new KVCache({ numLayers: 1, numKvHeads: 2, headDim: 32, capacity: 8 });
    expect(() => decoder.forward([1], { cache: other })).toThrow(
      'cache.numLayers is 1, expected 6',
    );
    const narrow = new KVCache({ numLayers: 6, numKvHeads: 2, headDim: 16, capacity: 8 });
    expect(() => decoder.forward([1], { cache: narrow })).toThrow(code('BL_INVALID_SHAPE'));
    expect(narrow.length).toBe(0);
    const cache = decoder.createCache();
    const running = decoder.forwardAsync([1], { cache });
    expect(() => decoder.forward([2], { cache })).toThrow('another step is using the cache');
    await running;
    expect(cache.length).toBe(1);
    decoder.forward([2], { cache });
  });

  it('aborts between operators and leaves the cache as it was', async () => {
    const cache = decoder.createCache();
    const controller = new AbortController();
    const running = decoder.forwardAsync(ids(512), { cache, signal: controller.signal });
    controller.abort(new Error('enough'));
    await expect(running).rejects.toThrow('enough');
    expect(cache.length % 256).toBe(0);
    await expect(
      decoder.forwardAsync([1], { cache, signal: AbortSignal.abort(new Error('never')) }),
    ).rejects.toThrow('never');
    cache.rewind(0);
    expect((await decoder.forwardAsync([1, 2], { cache })).toArray()).toEqual(
      decoder.forward([1, 2]).toArray(),
    );
  });
});

describe('Decoder: threads and instruction sets', () => {
  const tokens = ids(40);

  it.each(['f32', 'i8'] as const)(
    'threads 1, 2, 3, 7 give equal bits (%s)',
    async (activations) => {
      const results: number[][] = [];
      for (const threads of [1, 2, 3, 7]) {
        const decoder = await load(tinyModel, { threads, activations });
        results.push(decoder.forward(tokens).toArray());
        decoder.dispose();
      }
      for (const result of results) expect(result).toEqual(results[0]);
    },
  );

  const available = machine().isas.slice(1);
  it.each(available)('%s agrees with scalar', async (isa) => {
    const logits = async (level: Isa): Promise<number[]> => {
      const decoder = await load(tinyModel, { isa: level, activations: 'f32' });
      const result = decoder.forward(tokens).toArray();
      decoder.dispose();
      return result;
    };
    const scalar = await logits('scalar');
    const vector = await logits(isa);
    // Sums in another order, f32; logits reach 20.
    expect(
      Math.max(...scalar.map((value, i) => Math.abs(value - (vector[i] as number)))),
    ).toBeLessThan(5e-4);
  });
});

describe('dispose', () => {
  it('twice is once; use after it is an error', async () => {
    const decoder = await load(tinyModel);
    const cache = decoder.createCache();
    const before = decoder.forward([1], { cache });
    decoder.dispose();
    decoder.dispose();
    expect(decoder.disposed).toBe(true);
    expect(() => decoder.forward([1])).toThrow('Decoder: forward after dispose()');
    await expect(decoder.forwardAsync([1])).rejects.toMatchObject({ code: 'BL_DETACHED' });
    expect(() => decoder.generate('x')).toThrow(code('BL_DETACHED'));
    expect(() => decoder.createCache()).toThrow(code('BL_DETACHED'));
    expect(before.toArray()).toHaveLength(1024);
    cache.dispose();
    cache.dispose();
    expect(() => cache.rewind(0)).toThrow('KVCache: rewind after dispose()');
    expect(() => cache.layer(0)).toThrow(code('BL_DETACHED'));
  });

  it('while a step runs: the step ends well', async () => {
    const decoder = await load(tinyModel, { format: 'u4_g128' });
    const expected = decoder.forward([1, 2, 3]).toArray();
    const cache = decoder.createCache();
    const running = decoder.forwardAsync([1, 2, 3], { cache });
    decoder.dispose();
    const logits = await running;
    expect(logits.toArray()).toEqual(expected);
    cache.dispose();
  });

  it('works with using-style disposal symbols', async () => {
    const decoder = await load(tinyModel);
    decoder[Symbol.dispose]();
    expect(decoder.disposed).toBe(true);
  });
});

describe('KVCache', () => {
  it.each([
    ['capacity', 0],
    ['numLayers', -1],
    ['headDim', 1.5],
    ['numKvHeads', Number.NaN],
  ])('refuses %s = %s', (name, value) => {
    const options = { numLayers: 1, numKvHeads: 1, headDim: 2, capacity: 4, [name]: value };
    expect(() => new KVCache(options)).toThrow(code('BL_INVALID_SHAPE'));
  });

  it('refuses sizes beyond memory before it takes any', () => {
    const huge = { numLayers: 2 ** 20, numKvHeads: 2 ** 20, headDim: 2 ** 20, capacity: 2 ** 20 };
    expect(() => new KVCache(huge)).toThrow(code('BL_INVALID_SHAPE'));
    const large = { numLayers: 1, numKvHeads: 2 ** 16, headDim: 2 ** 16, capacity: 2 ** 16 };
    expect(() => new KVCache(large)).toThrow(RangeError);
    expect(
      () =>
        new KVCache({ numLayers: 1, numKvHeads: 1, headDim: 2, capacity: 4, dtype: 'i8' as 'f16' }),
    ).toThrow(code('BL_INVALID_DTYPE'));
  });
});

it('a model in memory, without tokenizer, takes token ids', async () => {
  const decoder = await load(ggufBytes(randomModel().content));
  expect(decoder.tokenizer).toBeUndefined();
  expect(() => decoder.generate('text')).toThrow(code('BL_NOT_FOUND'));
  const generation = decoder.generate([1, 2, 3], { maxTokens: 5 });
  expect(await generation.text()).toBe('');
  expect(generation.tokens).toHaveLength(5);
  decoder.dispose();
});
