import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Tensor } from '../../../lib/index.js';
import { fitLowRank } from '../../../lib/nn/index.js';
import { randomNumbers } from '../random_model.js';
import { expectRefusal } from '../refusals.js';

/** Eigenvalues of a symmetric matrix by Jacobi's rotations, falling: another way than the library's. */
function jacobiValues(a: number[][]): number[] {
  const n = a.length;
  const m = a.map((row) => [...row]);
  const at = (i: number, j: number): number => m[i]?.[j] as number;
  for (let sweep = 0; sweep < 40; sweep++) {
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        if (at(p, q) === 0) continue;
        const angle = 0.5 * Math.atan2(2 * at(p, q), at(p, p) - at(q, q));
        const [c, s] = [Math.cos(angle), Math.sin(angle)];
        for (let k = 0; k < n; k++) {
          const [x, y] = [at(k, p), at(k, q)];
          (m[k] as number[])[p] = c * x + s * y;
          (m[k] as number[])[q] = c * y - s * x;
        }
        for (let k = 0; k < n; k++) {
          const [x, y] = [at(p, k), at(q, k)];
          (m[p] as number[])[k] = c * x + s * y;
          (m[q] as number[])[k] = c * y - s * x;
        }
      }
    }
  }
  return m.map((_, i) => at(i, i)).sort((x, y) => y - x);
}

function random(shape: [number, number, number], seed: number, sizes = false): Tensor<'f32'> {
  const next = randomNumbers(seed);
  const [tokens, heads, dim] = shape;
  const data = Float32Array.from(
    { length: tokens * heads * dim },
    (_, i) => next() * (sizes ? 1 + (i % dim) : 1),
  );
  return new Tensor('f32', data, shape);
}

/** sum w (x - up down x)^2 and sum w x^2 in float64, and the smallest loss of a rank by the eigenvalues. */
function losses(
  x: Tensor<'f32'>,
  { down, up }: { down: Tensor<'f32'>; up: Tensor<'f32'> },
  weights: readonly number[],
): { loss: number; least: number } {
  const channels = weights.length;
  const rank = down.shape[0] as number;
  const gram = weights.map(() => weights.map(() => 0));
  let [lost, total] = [0, 0];
  for (let first = 0; first < x.size; first += channels) {
    const row = [...x.data.subarray(first, first + channels)];
    const features = Array.from({ length: rank }, (_, r) =>
      row.reduce((sum, value, c) => sum + value * (down.data[r * channels + c] as number), 0),
    );
    for (const [c, value] of row.entries()) {
      const back = features.reduce((sum, f, r) => sum + f * (up.data[c * rank + r] as number), 0);
      const w = weights[c] as number;
      lost += w * (value - back) ** 2;
      total += w * value ** 2;
      for (const [d, other] of row.entries()) {
        const both = Math.sqrt(w * (weights[d] as number));
        (gram[c] as number[])[d] = (gram[c]?.[d] as number) + both * value * other;
      }
    }
  }
  const least = jacobiValues(gram)
    .slice(rank)
    .reduce((sum, value) => sum + Math.max(value, 0), 0);
  return { loss: lost / total, least: least / total };
}

describe('fitLowRank', () => {
  it('loses as little as any factors of the rank can', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 30 }),
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 15 }),
        fc.integer(),
        (tokens, heads, dim, wanted, seed) => {
          const rank = Math.min(wanted, heads * dim);
          const keys = random([tokens, heads, dim], seed, true);
          const { keys: k, values: v } = fitLowRank({ keys, values: keys }, { keyRank: rank });
          const ones = new Array<number>(heads * dim).fill(1);
          for (const pair of [k, v]) {
            const { loss, least } = losses(keys, pair, ones);
            expect(loss).toBeLessThan(least + 1e-6);
            expect(pair.loss).toBeCloseTo(least, 6);
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  it('weighs keys by the mean square of their queries', () => {
    const keys = random([50, 2, 6], 1, true);
    const queries = random([50, 4, 6], 2, true);
    const { keys: pair } = fitLowRank({ keys, values: keys, queries }, { keyRank: 5 });
    const weights = new Array<number>(12).fill(0);
    for (let i = 0; i < queries.size; i++) {
      const channel = Math.floor((Math.floor(i / 6) % 4) / 2) * 6 + (i % 6);
      weights[channel] = (weights[channel] as number) + (queries.data[i] as number) ** 2;
    }
    const { loss, least } = losses(keys, pair, weights);
    expect(loss).toBeLessThan(least * (1 + 1e-5));
    expect(pair.loss).toBeCloseTo(least, 6);
    const { keys: even } = fitLowRank({ keys, values: keys }, { keyRank: 5 });
    expect(losses(keys, even, weights).loss).toBeGreaterThan(loss);
  });

  it('full rank loses nothing, ranks of data neither', () => {
    const keys = random([40, 2, 8], 3);
    expect(fitLowRank({ keys, values: keys }, { keyRank: 16 }).keys.loss).toBeLessThan(1e-12);
    // Two directions only.
    const data = Float32Array.from({ length: 40 * 8 }, (_, i) => {
      const [t, c] = [Math.floor(i / 8), i % 8];
      return Math.sin(t) * (c + 1) + Math.cos(3 * t) * (c % 3);
    });
    const flat = new Tensor('f32', data, [40, 1, 8]);
    const { keys: two, values: one } = fitLowRank(
      { keys: flat, values: flat },
      { keyRank: 2, valueRank: 1 },
    );
    expect(two.loss).toBeLessThan(1e-10);
    expect(one.loss).toBeGreaterThan(1e-4);
    expect([two.down.shape, two.up.shape]).toEqual([
      [2, 8],
      [8, 2],
    ]);
  });

  it('channels that no query uses, and zeros, give finite factors', () => {
    const zeros = Tensor.zeros('f32', [4, 1, 6]);
    const keys = random([4, 1, 6], 4);
    for (const samples of [
      { keys: zeros, values: zeros },
      { keys, values: zeros, queries: zeros },
    ]) {
      const { keys: pair } = fitLowRank(samples, { keyRank: 3 });
      for (const x of [...pair.down.data, ...pair.up.data]) expect(x).toSatisfy(Number.isFinite);
    }
  });

  it('refuses what it cannot fit', async () => {
    const keys = random([4, 2, 6], 4);
    const fitted =
      (samples: object, options: object = { keyRank: 3 }) =>
      () =>
        fitLowRank({ keys, values: keys, ...samples }, options as { keyRank: number });
    const flat = Tensor.zeros('f32', [4]);
    await expectRefusal(fitted({ keys: flat }), 'BL_INVALID_SHAPE', 'samples.keys is f32 [4]');
    await expectRefusal(fitted({ values: flat }), 'BL_INVALID_SHAPE', 'samples.values is f32 [4]');
    await expectRefusal(
      fitted({ queries: flat }),
      'BL_INVALID_SHAPE',
      'samples.queries is f32 [4]',
    );
    const queries = random([4, 3, 6], 4);
    await expectRefusal(fitted({ queries }), 'BL_INVALID_SHAPE', 'a multiple of 2, 6');
    for (const keyRank of [0, 13, 1.5]) {
      await expectRefusal(fitted({}, { keyRank }), 'BL_OUT_OF_RANGE', `keyRank is ${keyRank}`);
      await expectRefusal(
        fitted({}, { keyRank: 1, valueRank: keyRank }),
        'BL_OUT_OF_RANGE',
        `valueRank is ${keyRank}`,
      );
    }
    const bad = new Tensor('f32', [1, Number.POSITIVE_INFINITY], [1, 1, 2]);
    await expectRefusal(fitted({ keys: bad }, { keyRank: 1 }), 'BL_NON_FINITE', 'keys[1]');
  });
});
