// PagedKVCache: turned keys, chunks, batches and attention, steps, budgets, misuse.
import { describe, expect, it } from 'vitest';
import { attention, decodeAttention, rope, Tensor } from '../../../lib/index.js';
import { PagedKVCache, type PagedKVCacheOptions, type RopeSetting } from '../../../lib/nn/index.js';
import { appendIds, difference, keysOf, shape, valuesOf } from './kv_model.js';

const ids = (count: number, first = 0): number[] =>
  Array.from({ length: count }, (_, i) => first + i);
const cacheOf = (options: Partial<PagedKVCacheOptions> = {}) =>
  new PagedKVCache({ ...shape, format: 'f32', numPages: 40, ...options });
const failure = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });
function thrown(body: () => unknown): unknown {
  try {
    body();
  } catch (error) {
    return error;
  }
  return undefined;
}

/** Keys of `tokens` as a model writes them, rotated to `positions`. */
function rotated(tokens: number[], layer: number, positions: number[], setting: RopeSetting) {
  return rope(keysOf(tokens, layer), new Tensor('i32', positions, [positions.length]), setting);
}
function appendRotated(
  sequence: ReturnType<PagedKVCache['create']>,
  tokens: number[],
  setting: RopeSetting,
): void {
  const positions = ids(tokens.length, sequence.length);
  for (let layer = 0; layer < shape.numLayers; layer++) {
    sequence.append(layer, rotated(tokens, layer, positions, setting), valuesOf(tokens, layer));
  }
}

const settings: RopeSetting[] = [
  { mode: 'half', theta: 1e4 },
  { mode: 'interleaved', theta: 1e4, rotaryDim: 8 },
  { mode: 'half', rotaryDim: 12, scaling: { type: 'linear', factor: 4 } },
  { scaling: { type: 'yarn', factor: 4, originalContext: 64 } },
];

describe.each(settings)('keys that come to stand elsewhere, %j', (setting) => {
  it.each([0, 20])('a removed range, %i recent', (recent) => {
    const cache = cacheOf({ rope: setting, recent, recentFormat: 'f32', numRecentPages: 30 });
    const a = cache.create();
    appendRotated(a, ids(50), setting);
    const b = a.fork();
    a.removeRange(11, 22, { reposition: true });
    const left = [...ids(11), ...ids(28, 22)];
    for (let layer = 0; layer < shape.numLayers; layer++) {
      const { k, v } = a.gather(layer);
      expect(difference(k, rotated(left, layer, ids(39), setting))).toBeLessThan(2e-5);
      expect(difference(v, valuesOf(left, layer))).toBe(0);
      expect(difference(b.gather(layer).k, rotated(ids(50), layer, ids(50), setting))).toBe(0);
    }
    cache.dispose();
  });

  it.each([0, 20])(
    'cached chunks at the end of a page, within one, and before, %i recent',
    (recent) => {
      const cache = cacheOf({ rope: setting, recent, recentFormat: 'f32', numRecentPages: 30 });
      const source = cache.create();
      appendRotated(source, ids(40), setting);
      source.seal();
      expect(source.registerChunk(16, ids(20, 16))).toBe(16);
      for (const before of [0, 8, 24, 3, 33]) {
        const target = cache.create();
        appendRotated(target, ids(before, 500), setting);
        expect(target.appendChunk(ids(24, 16))).toBe(16);
        const all = [...ids(before, 500), ...ids(16, 16)];
        for (let layer = 0; layer < shape.numLayers; layer++) {
          const { k, v } = target.gather(layer);
          expect(difference(k, rotated(all, layer, ids(all.length), setting))).toBeLessThan(2e-5);
          expect(difference(v, valuesOf(all, layer))).toBe(0);
        }
        target.free();
      }
      // Where it stood already, its pages are shared.
      const same = cache.create();
      appendRotated(same, ids(16, 500), setting);
      same.seal();
      const { used } = cache.stats.sealed;
      expect(same.appendChunk(ids(16, 16))).toBe(16);
      expect(cache.stats.sealed.used).toBe(used);
      expect(same.appendChunk(ids(16, 900))).toBe(0);
      expect(cache.stats.sealed.sequences).toBe(2);
      cache.dispose();
    },
  );
});

describe('batches', () => {
  it.each([
    { format: 'f32' },
    { format: 'f16' },
    { format: 'i8', recent: 10 },
    { format: 'i4' },
  ] as Partial<PagedKVCacheOptions>[])(
    'attention over segments is attention over what gather gives, %j',
    (options) => {
      const cache = cacheOf(options);
      const sequences = [0, 1, 2].map(() => cache.create());
      for (const [step, counts] of [
        [5, 20, 1],
        [9, 3, 12],
        [1, 1, 1],
        [1, 0, 30],
      ].entries()) {
        const total = counts.reduce((sum, count) => sum + count, 0);
        const tokens = ids(total, 100 * step);
        const before = sequences.map(({ length }) => length);
        const batch = cache.batch(sequences, counts);
        expect(batch.tokens).toBe(total);
        expect([...batch.positions.data]).toEqual(
          counts.flatMap((count, i) => ids(count, before[i] as number)),
        );
        for (let layer = 0; layer < shape.numLayers; layer++) {
          batch.append(layer, keysOf(tokens, layer), valuesOf(tokens, layer));
          const q = keysOf([...tokens, ...tokens], layer).reshape([total, 4, shape.headDim]);
          const { cuQueries } = batch;
          const mixed = decodeAttention(q, batch.segments(layer), { cuQueries });
          if (layer + 1 < shape.numLayers) continue;
          for (const [i, sequence] of sequences.entries()) {
            const [begin = 0, end = 0] = [cuQueries.data[i], cuQueries.data[i + 1]];
            if (begin === end) continue;
            const { k, v } = sequence.gather(layer);
            const exact = attention(q.slice(begin, end), k, v as Tensor<'f32'>, { causal: true });
            const own = mixed.slice(begin, end);
            const copy = new Tensor('f32', own.data.slice(0, exact.size), exact.shape);
            expect(difference(copy, exact)).toBeLessThan(1e-5);
          }
        }
      }
      cache.dispose();
    },
  );

  it('a step that ends early is taken back', () => {
    const cache = cacheOf({ format: 'i4' });
    const [a, b] = [cache.create(), cache.create()];
    appendIds(a, ids(20));
    const before = a.gather(0).k;
    const batch = cache.batch([a, b], [9, 9]);
    const tokens = ids(18, 50);
    batch.append(1, keysOf(tokens, 1), valuesOf(tokens, 1));
    expect(a.length).toBe(29);
    expect(thrown(() => batch.segments(0))).toEqual(failure('BL_INVALID_ARGUMENT', /layer 0/));
    expect(thrown(() => batch.append(1, keysOf(tokens, 1), valuesOf(tokens, 1)))).toEqual(
      failure('BL_INVALID_ARGUMENT', /1 of 2 layers are missing/),
    );
    expect(thrown(() => batch.commit())).toEqual(failure('BL_INVALID_ARGUMENT', /missing/));
    expect(thrown(() => a.trim(3))).toEqual(failure('BL_INVALID_ARGUMENT', /step is under way/));
    expect(thrown(() => cache.batch([a], 1))).toEqual(failure('BL_INVALID_ARGUMENT', /under way/));
    batch.abort();
    expect([a.length, b.length]).toEqual([20, 0]);
    expect(difference(a.gather(0).k, before)).toBe(0);
    expect(thrown(() => batch.segments(1))).toEqual(failure('BL_INVALID_ARGUMENT', /changed/));
    cache.dispose();
  });

  it('all or nothing where pages are lacking; the policy can not free what needs them', () => {
    const freed: unknown[] = [];
    const cache: PagedKVCache = cacheOf({
      numPages: 4,
      evict: ({ pages }) => {
        expect(pages).toBe('sealed');
        freed.push(thrown(() => a.free()));
        if (freed.length === 1) idle.free();
      },
    });
    const [a, idle] = [cache.create(), cache.create()];
    appendIds(a, ids(8));
    appendIds(idle, ids(16));
    const b = cache.create();
    expect(thrown(() => cache.batch([a, b], [8, 24]))).toEqual(
      failure('BL_OUT_OF_MEMORY', /pages wanted/),
    );
    expect([a.length, b.length, idle.freed]).toEqual([8, 0, true]);
    expect(freed[0]).toEqual(failure('BL_INVALID_ARGUMENT', /made room for/));
    appendIds(a, ids(16));
    cache.dispose();
  });

  it('tokens stand where the eviction policy has left their sequence', () => {
    const cache: PagedKVCache = cacheOf({ numPages: 4, evict: () => b.trim(5) });
    const [a, b] = [cache.create(), cache.create()];
    appendIds(a, ids(8));
    appendIds(b, ids(24));
    const batch = cache.batch([a, b], [8, 2]); // a needs the page that b gives
    expect(batch.positions.toArray()).toEqual([...ids(8, 8), 5, 6]);
    expect(batch.cuQueries.toArray()).toEqual([0, 8, 10]);
    expect([a.length, b.length]).toEqual([16, 7]);
    cache.dispose();
  });
});

describe('PagedKVCache', () => {
  it('makes as many pages as the budget holds', () => {
    const whole = new PagedKVCache({ ...shape, format: 'i4', recent: 16, budgetBytes: 400_000 });
    const { bytes, sealed, recent } = whole.stats;
    expect(bytes).toBeLessThanOrEqual(400_000);
    expect(bytes).toBeGreaterThan(390_000);
    expect([sealed.used, recent?.used]).toEqual([0, 0]);
    expect(thrown(() => new PagedKVCache({ ...shape, budgetBytes: 1000 }))).toEqual(
      failure('BL_OUT_OF_MEMORY', /budgetBytes is 1000, expected at least/),
    );
    expect(thrown(() => new PagedKVCache({ ...shape }))).toEqual(
      failure('BL_INVALID_ARGUMENT', /one of/),
    );
    expect(thrown(() => cacheOf({ pageSize: 12 }))).toEqual(
      failure('BL_INVALID_SHAPE', /pageSize/),
    );
    expect(thrown(() => cacheOf({ format: 'i5' as never }))).toEqual(
      failure('BL_INVALID_FORMAT', /i5/),
    );
    expect(thrown(() => cacheOf({ recent: -1 }))).toEqual(failure('BL_OUT_OF_RANGE', /recent/));
    whole.dispose();
  });

  it.each<[string, object, string, RegExp]>([
    ['an option', { pagesize: 16 }, 'BL_INVALID_ARGUMENT', /option "pagesize" is not known/],
    ['headDim', { headDim: '8' }, 'BL_OUT_OF_RANGE', /headDim is "8", expected a whole number/],
    ['valueDim', { valueDim: Number.NaN }, 'BL_OUT_OF_RANGE', /valueDim is NaN/],
    ['format', { format: null }, 'BL_INVALID_FORMAT', /format is null/],
    ['evict', { evict: 5 }, 'BL_INVALID_ARGUMENT', /evict is 5, expected a function/],
    ['rope', { rope: null }, 'BL_INVALID_ARGUMENT', /rope is null, expected an object or/],
    ['isa', { isa: 'mmx' }, 'BL_INVALID_ARGUMENT', /isa is "mmx"/],
    ['keyMeans', { keyMeans: 5 }, 'BL_INVALID_ARGUMENT', /keyMeans is 5, expected an array/],
    ['a mean', { keyMeans: [5] }, 'BL_INVALID_ARGUMENT', /keyMeans\[0\] is 5, expected a Tensor/],
    [
      'the shape of a mean',
      { keyMeans: [undefined, Tensor.zeros('f32', [3])] },
      'BL_INVALID_SHAPE',
      /keyMeans\[1\] is f32 \[3\], expected f32 \[2,16\]/,
    ],
  ])('refuses %s', (_, options, code, message) => {
    expect(thrown(() => cacheOf(options))).toEqual(failure(code, message));
  });

  it('misuse is an error with a code', () => {
    const [cache, other] = [cacheOf(), cacheOf()];
    const a = cache.create();
    expect(thrown(() => a.append(0, keysOf(ids(3), 0), valuesOf(ids(2), 0)))).toEqual(
      failure('BL_INVALID_SHAPE', /v is \[2,2,8\], expected \[3,2,8\]/),
    );
    expect(a.length).toBe(0); // taken back
    expect(thrown(() => a.append(2, keysOf(ids(3), 0), valuesOf(ids(3), 0)))).toEqual(
      failure('BL_OUT_OF_RANGE', /layer is 2, expected 0 to 1/),
    );
    expect(thrown(() => a.append(0, 'k' as never))).toEqual(
      failure('BL_INVALID_ARGUMENT', /k is "k", expected a Tensor/),
    );
    expect(thrown(() => cache.batch(5 as never))).toEqual(
      failure('BL_INVALID_ARGUMENT', /sequences is 5, expected an array/),
    );
    expect(thrown(() => new PagedKVCache(undefined as never))).toEqual(
      failure('BL_INVALID_ARGUMENT', /options is undefined, expected an object/),
    );
    appendIds(a, ids(20));
    expect(thrown(() => a.removeRange(0, 1, null as never))).toEqual(
      failure('BL_INVALID_ARGUMENT', /removeRange: options is null/),
    );
    expect(thrown(() => other.batch([a], 1))).toEqual(
      failure('BL_INVALID_ARGUMENT', /not a sequence of this/),
    );
    expect(thrown(() => cache.batch([{} as never], 1))).toEqual(
      failure('BL_INVALID_ARGUMENT', /sequences\[0\]/),
    );
    expect(thrown(() => cache.batch([a, a], 1))).toEqual(
      failure('BL_INVALID_ARGUMENT', /under way/),
    );
    expect(a.length).toBe(20);
    expect(thrown(() => a.removeRange(2, 4, { reposition: true }))).toEqual(
      failure('BL_INVALID_ARGUMENT', /option rope/),
    );
    expect(thrown(() => a.gather(0, 5, 21))).toEqual(failure('BL_OUT_OF_RANGE', /end is 21/));
    const old = a.segments(0);
    expect(a.segments(1)[0]?.blockTable).toBe(old[0]?.blockTable);
    a.swapOut();
    expect(cache.stats.swappedBytes).toBe(3 * (cache.stats.bytes / 40));
    expect(thrown(() => a.segments(0))).toEqual(failure('BL_INVALID_ARGUMENT', /swapped out/));
    a.swapIn();
    expect(difference(a.gather(1).k, keysOf(ids(20), 1))).toBe(0);
    a.free();
    expect(thrown(() => a.free())).toEqual(failure('BL_DETACHED', /after free/));
    expect(thrown(() => a.append(0, keysOf([1], 0)))).toEqual(failure('BL_DETACHED', /after free/));
    const b = cache.create();
    cache.dispose();
    expect(thrown(() => b.append(0, keysOf([1], 0)))).toEqual(
      failure('BL_DETACHED', /after dispose/),
    );
    expect(thrown(() => cache.create())).toEqual(failure('BL_DETACHED', /after dispose/));
    other.dispose();
  });
});
