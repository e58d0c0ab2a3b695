// nearestKeys against the formula in float64.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type FloatDType, nearestKeys, nearestKeysAsync, Tensor } from '../../lib/index.js';
import {
  epsilon,
  expectError,
  floatTypes,
  isas,
  onDevice,
  strided,
} from '../reference/op_checks.js';
import { randomSource } from '../reference/random.js';
import { i32 } from './cases.js';

interface Case {
  tokens: number;
  heads: number;
  dim: number;
  rows: number;
  candidates: number;
  seed: number;
}

const cases = fc.record({
  tokens: fc.integer({ min: 1, max: 30 }),
  heads: fc.integer({ min: 1, max: 3 }),
  dim: fc.integer({ min: 1, max: 67 }),
  rows: fc.integer({ min: 0, max: 40 }),
  candidates: fc.integer({ min: 1, max: 13 }),
  seed: fc.nat(),
});

function make({ tokens, heads, dim, rows, candidates, seed }: Case, dtype: FloatDType = 'f32') {
  const random = randomSource(seed);
  const values = Float32Array.from({ length: tokens * heads * dim }, () => random() * 2 - 1);
  const pick = (count: number) =>
    i32(
      Array.from({ length: count * heads }, () => Math.floor(random() * tokens)),
      count,
      heads,
    );
  return {
    keys: strided(dtype, values, [tokens, heads, dim], [3, 2, 0]),
    rows: pick(rows),
    candidates: pick(candidates),
  };
}

/** Cosine of two rows of a head, of the values as they stand. */
function cosine(
  data: readonly number[],
  { heads, dim }: Case,
  a: number,
  b: number,
  head: number,
): number {
  let [product, aa, bb] = [0, 0, 0];
  for (let c = 0; c < dim; c++) {
    const x = data[(a * heads + head) * dim + c] as number;
    const y = data[(b * heads + head) * dim + c] as number;
    product += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa === 0 || bb === 0 ? 0 : product / Math.sqrt(aa * bb);
}

describe('nearestKeys', () => {
  it.each(isas.flatMap((isa) => floatTypes.map((dtype) => [isa, dtype] as const)))(
    '%s, %s: the largest cosine, within the rounding of f32 sums',
    (isa, dtype) => {
      fc.assert(
        fc.property(cases, (what) => {
          const { keys, rows, candidates } = make(what, dtype);
          const values = keys.toArray();
          const { index, similarity } = nearestKeys(keys, rows, candidates, { isa });
          expect(index.shape).toEqual([what.rows, what.heads]);
          for (let r = 0; r < what.rows * what.heads; r++) {
            const head = r % what.heads;
            const row = rows.data[r] as number;
            const all = Array.from({ length: what.candidates }, (_, c) =>
              cosine(values, what, row, candidates.data[c * what.heads + head] as number, head),
            );
            const best = Math.max(...all);
            // Unit vectors are rounded to f32, and 67 products summed in f32: (5 + 8) * 2^-24 of sum |q r| <= 1, and 2 more.
            const bound = 8 * epsilon.f32;
            expect(Math.abs((similarity.data[r] as number) - best)).toBeLessThanOrEqual(bound);
            const chosen = all[index.data[r] as number] as number;
            expect(best - chosen).toBeLessThanOrEqual(2 * bound);
          }
        }),
        { numRuns: 40 },
      );
    },
  );

  it('of equal ones the first, 0 for a key of length 0, none that is not finite', () => {
    const keys = new Tensor('f32', [1, 0, 2, 0, 0, 0, Number.NaN, 1, 0, -3], [5, 1, 2]);
    const column = (...list: number[]) => i32(list, list.length, 1);
    const { index, similarity } = nearestKeys(keys, column(0, 2, 3, 4), column(2, 3, 1, 0));
    expect([...index.data]).toEqual([2, 0, 0, 0]);
    expect([...similarity.data]).toEqual([1, 0, Number.NaN, 0]);
  });

  it.skipIf(onDevice)('threads and async give the same bits', async () => {
    const what = { tokens: 400, heads: 4, dim: 64, rows: 200, candidates: 200, seed: 3 };
    const { keys, rows, candidates } = make(what);
    const one = nearestKeys(keys, rows, candidates, { threads: 1 });
    for (const threads of [2, 3, 7]) {
      const many = await nearestKeysAsync(keys, rows, candidates, { threads });
      expect(many.index.data).toEqual(one.index.data);
      expect(many.similarity.data).toEqual(one.similarity.data);
    }
  });

  it('what does not fit is refused', () => {
    const keys = Tensor.zeros('f32', [3, 2, 4]);
    const two = i32([0, 1, 2, 0], 2, 2);
    const refused = (code: string, message: string, body: () => unknown) =>
      expectError(body, code, `nearestKeys: ${message}`);
    refused('BL_OUT_OF_RANGE', 'rows[1] is 3, expected 0 to 2 (= keys.shape[0] - 1)', () =>
      nearestKeys(keys, i32([0, 3], 1, 2), two),
    );
    refused('BL_OUT_OF_RANGE', 'candidates[2] is -1, expected 0 to 2 (= keys.shape[0] - 1)', () =>
      nearestKeys(keys, two, i32([0, 1, -1, 0], 2, 2)),
    );
    refused('BL_INVALID_SHAPE', 'rows.shape[1] is 1, expected 2 (= keys.shape[1])', () =>
      nearestKeys(keys, i32([0], 1, 1), two),
    );
    refused('BL_INVALID_SHAPE', 'candidates.shape[0] is 0, expected at least 1', () =>
      nearestKeys(keys, two, i32([], 0, 2)),
    );
    refused('BL_INVALID_SHAPE', 'keys.rank is 2, expected 3', () =>
      nearestKeys(Tensor.zeros('f32', [3, 4]), two, two),
    );
    refused('BL_INVALID_ARGUMENT', 'index overlaps rows, expected separate memory', () =>
      nearestKeys(keys, two, two, {
        out: { index: two, similarity: Tensor.zeros('f32', [2, 2]) },
      }),
    );
    refused('BL_INVALID_SHAPE', 'similarity.shape[0] is 1, expected 2 (= rows.shape[0])', () =>
      nearestKeys(keys, two, two, {
        out: { index: i32([0, 0, 0, 0], 2, 2), similarity: Tensor.zeros('f32', [1, 2]) },
      }),
    );
  });
});
