import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { attention, attentionAsync, type FloatDType, type Isa, Tensor } from '../../lib/index.js';
import { attentionReference } from '../reference/attention.js';
import { epsilon, floatTypes, isas, strided, worst } from '../reference/op_checks.js';
import { firstDifference, gaussian } from '../reference/random.js';

interface AttentionShape {
  queries: number;
  keys: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  valueDim: number;
}

function tensors(shape: AttentionShape, dtype: FloatDType, seed = 1, gaps: readonly number[] = []) {
  const { queries, keys, heads, kvHeads, headDim, valueDim } = shape;
  const make = (sizes: number[], salt: number) =>
    strided(
      dtype,
      gaussian(
        sizes.reduce((a, b) => a * b),
        seed + salt,
      ),
      sizes,
      gaps,
    );
  return {
    q: make([queries, heads, headDim], 0),
    k: make([keys, kvHeads, headDim], 1),
    v: make([keys, kvHeads, valueDim], 2),
  };
}

/**
 * Error allowed per value, in units of the largest |v|. scalar: double, one rounding at the end. SIMD: a
 * score is off by about headDim / 2 roundings of f32, which moves a weight by as much relatively.
 */
function bound(isa: Isa, headDim: number, values: number[], dtype: FloatDType): number {
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30);
  const f32 = isa === 'scalar' ? 1 : 16 + headDim / 2;
  return largest * (f32 * epsilon.f32 + epsilon[dtype] / 2);
}

describe('attention', () => {
  it.each(floatTypes)('matches the formula for all shapes in %s', (dtype) => {
    fc.assert(
      fc.property(
        fc.record({
          queries: fc.oneof(fc.integer({ min: 0, max: 36 }), fc.integer({ min: 1, max: 3 })),
          extra: fc.integer({ min: -10, max: 100 }),
          kvHeads: fc.integer({ min: 1, max: 2 }),
          group: fc.integer({ min: 0, max: 9 }),
          // Few queries of whole vectors of channels have code of their own.
          headDim: fc.oneof(fc.integer({ min: 1, max: 70 }), fc.constantFrom(16, 32, 64, 80)),
          valueDim: fc.oneof(fc.integer({ min: 0, max: 70 }), fc.constantFrom(16, 48, 64)),
          causal: fc.boolean(),
          window: fc.constantFrom(0, 1, 5, 64, 1000),
          scale: fc.constantFrom(undefined, 0.05, -0.1),
          gaps: fc.constantFrom<number[]>([], [2, 3, 0], [5, 0, 1]),
          isa: fc.constantFrom(...isas),
          seed: fc.integer(),
        }),
        ({
          queries,
          extra,
          kvHeads,
          group,
          headDim,
          valueDim,
          causal,
          window,
          isa,
          seed,
          gaps,
          ...rest
        }) => {
          const keys = Math.max(0, queries + extra);
          const shape = { queries, keys, heads: kvHeads * group, kvHeads, headDim, valueDim };
          const { q, k, v } = tensors(shape, dtype, seed, gaps);
          const options = {
            causal,
            window,
            ...(rest.scale === undefined ? {} : { scale: rest.scale }),
          };
          const values = v.toArray();
          const expected = attentionReference(q, k, v, options).output;
          const sizes = [queries, shape.heads, valueDim];
          const out = strided(
            dtype,
            new Float32Array(queries * shape.heads * valueDim),
            sizes,
            [1, 2, 1],
          );
          const actual = attention(q, k, v, { ...options, isa, out }).toArray();
          expect(
            worst(actual, expected, bound(isa, headDim, values, dtype), 0),
          ).toBeLessThanOrEqual(1);
        },
      ),
      { numRuns: 80 },
    );
  });

  it.each([64, 128, 80])('stays within its bound over long contexts, headDim %i', (headDim) => {
    const shape = { queries: 2, keys: 900, heads: 8, kvHeads: 2, headDim, valueDim: headDim };
    const { q, k, v } = tensors(shape, 'f32', 3);
    const expected = attentionReference(q, k, v, { causal: true }).output;
    for (const isa of isas) {
      const actual = attention(q, k, v, { causal: true, isa }).data;
      const limit = bound(isa, headDim, v.toArray(), 'f32');
      expect(worst(actual, expected, limit, 0)).toBeLessThanOrEqual(1);
    }
  });

  it('holds large scores: one key takes all', () => {
    const shape = { queries: 3, keys: 100, heads: 2, kvHeads: 1, headDim: 20, valueDim: 20 };
    const { q, k, v } = tensors(shape, 'f32');
    const expected = attentionReference(q, k, v, { scale: 1000 }).output;
    for (const isa of isas) {
      const actual = attention(q, k, v, { scale: 1000, isa }).data;
      expect(worst(actual, expected, 1e-3, 0)).toBeLessThanOrEqual(1);
    }
  });

  it('gives equal bits on any thread count, async, and for cache views with room', async () => {
    const shape = { queries: 37, keys: 130, heads: 12, kvHeads: 4, headDim: 24, valueDim: 40 };
    const { q, k, v } = tensors(shape, 'f16');
    const room = tensors(shape, 'f16', 1, [1000, 8, 0]);
    for (const isa of isas) {
      const options = { causal: true, window: 90, isa };
      const expected = attention(q, k, v, { ...options, threads: 1 });
      for (const threads of [2, 3, 7]) {
        const actual = attention(q, k, v, { ...options, threads });
        expect(firstDifference(actual.bytes, expected.bytes)).toBe(-1);
      }
      expect(firstDifference((await attentionAsync(q, k, v, options)).bytes, expected.bytes)).toBe(
        -1,
      );
      const viewed = attention(room.q, room.k, room.v, options);
      expect(firstDifference(viewed.bytes, expected.bytes)).toBe(-1);
    }
  });

  it('takes q and output of other dtypes than the cache', () => {
    const shape = { queries: 2, keys: 9, heads: 4, kvHeads: 2, headDim: 16, valueDim: 8 };
    const { k, v } = tensors(shape, 'bf16');
    const { q } = tensors(shape, 'f32');
    const expected = attentionReference(q, k, v).output;
    for (const isa of isas) {
      const out = Tensor.zeros('f16', [2, 4, 8]);
      expect(attention(q, k, v, { isa, out })).toBe(out);
      expect(
        worst(out.toArray(), expected, bound(isa, 16, v.toArray(), 'f16'), 0),
      ).toBeLessThanOrEqual(1);
    }
  });

  it.each([
    [40, 18, 21],
    [3, 18, 21],
    [3, 32, 48],
  ])(
    'never lets an unseen key touch a result, even NaN: %i queries, %i channels, %i',
    (queries, headDim, valueDim) => {
      const shape = { queries, keys: 140, heads: 2, kvHeads: 1, headDim, valueDim };
      const { q, k, v } = tensors(shape, 'f32');
      const options = { causal: true, window: 70 };
      for (const isa of isas) {
        const clean = attention(q, k, v, { ...options, isa });
        const dirtyK = new Tensor('f32', k.data.slice(), k.shape);
        const dirtyV = new Tensor('f32', v.data.slice(), v.shape);
        // The last key is seen by the last query only, the second by query 0 only, key 0 by none.
        for (const key of [139, 140 - queries - 70 + 1, 0]) {
          dirtyK.data.fill(Number.NaN, key * headDim, (key + 1) * headDim);
          dirtyV.data.fill(Number.NaN, key * valueDim, (key + 1) * valueDim);
        }
        const dirty = attention(q, dirtyK, dirtyV, { ...options, isa }).data;
        const row = 2 * valueDim;
        const last = (queries - 1) * row;
        expect(firstDifference(dirty.subarray(row, last), clean.data.subarray(row, last))).toBe(-1);
        expect(dirty.subarray(0, row).every(Number.isNaN)).toBe(true);
        expect(dirty.subarray(last).every(Number.isNaN)).toBe(true);
      }
    },
  );

  it.each([1, 16])(
    'follows the formula for infinities, NaN, denormals and zeros, %i channels',
    (dim) => {
      const { POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: minus, NaN: nan } = Number;
      const tiny = 2 ** -149;
      const cases: [string, number[], number[], number[]][] = [
        // name, scores (headDim 1, q 1, scale 1), values, expected
        ['-infinity excludes a key', [0, minus, 0], [1, 5, 3], [2]],
        ['only -infinity', [minus, minus], [1, nan], [0]],
        ['+infinity', [inf, 0], [1, 2], [nan]],
        ['NaN score', [nan, 0], [1, 2], [nan]],
        ['excluded infinite value', [0, minus], [1, inf], [1]],
        ['excluded NaN', [minus, 0], [nan, 2], [2]],
        ['infinite value', [0, 0], [1, inf], [inf]],
        ['zeros', [0, 0], [0, 0], [0]],
        ['denormal values', [0, 0], [3 * tiny, 5 * tiny], [4 * tiny]],
        ['tie', [7, 7, 7, 7], [1, 2, 3, 4], [2.5]],
      ];
      for (const isa of isas) {
        for (const [name, scores, values, expected] of cases) {
          // Any number of -infinity before must change nothing.
          for (const before of [0, 64, 100, 600]) {
            const first = (numbers: number[]) => {
              const rows = numbers.map((value) => [value, ...Array<number>(dim - 1).fill(0)]);
              return new Tensor('f32', rows.flat(), [rows.length, 1, dim]);
            };
            const k = first([...Array<number>(before).fill(minus), ...scores]);
            const v = first([...Array<number>(before).fill(inf), ...values]);
            expect(k.shape[0]).toBe(before + scores.length);
            const [actual] = attention(first([1]), k, v, { scale: 1, isa }).toArray();
            expect([name, isa, before, actual]).toEqual([name, isa, before, ...expected]);
          }
        }
      }
    },
  );
});
