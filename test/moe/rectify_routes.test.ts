// The Rectify-Router against its equations, in float64, from the logits on.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  limitCapacity,
  type MoERoutes,
  moeRoute,
  type RectifyOptions,
  rectifyRoutes,
  Tensor,
} from '../../lib/index.js';
import { expectError } from '../reference/op_checks.js';
import { gaussian } from '../reference/random.js';

const f32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('f32', Float32Array.from(values), shape);
const i32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('i32', Int32Array.from(values), shape);
const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
const list = ({ indices, weights }: MoERoutes) => {
  const [tokens = 0, width = 0] = indices.shape;
  return Array.from({ length: tokens }, (_, t) =>
    Array.from({ length: width }, (_, k) => ({
      expert: indices.data[t * width + k] as number,
      weight: weights.data[t * width + k] as number,
    })),
  );
};

/** Weight of each expert for each token: `weights[t][e]`, by the equations with exp(logits). */
function equations(
  logits: number[][],
  { topK, capacity, numDevices = 1, intraDevice = true, fillIn = true }: Shape,
) {
  const tokens = logits.length;
  const experts = logits[0]?.length ?? 0;
  const ranked = logits.map((a) =>
    a.map((_, e) => e).sort((x, y) => (a[y] as number) - (a[x] as number) || x - y),
  );
  const score = (t: number, e: number) => Math.exp(logits[t]?.[e] as number);
  const left = new Array<number>(experts).fill(capacity);
  const kept: number[][] = logits.map(() => []);
  for (let k = 0; k < topK; k++) {
    for (let t = 0; t < tokens; t++) {
      const e = ranked[t]?.[k] as number;
      if ((left[e] as number) <= 0) continue;
      left[e] = (left[e] as number) - 1;
      kept[t]?.push(e);
    }
  }
  const g = logits.map((_, t) => new Map(kept[t]?.map((e) => [e, score(t, e)])));
  const local: (number | undefined)[] = logits.map((_, t) => {
    const lost = topK - (kept[t]?.length as number);
    if (!intraDevice || lost === 0) return undefined;
    const device = Math.floor((t * numDevices) / tokens);
    const h = ranked[t]?.find((e) => Math.floor((e * numDevices) / experts) === device) as number;
    g[t]?.set(h, (g[t]?.get(h) ?? 0) + lost * score(t, h));
    return h;
  });
  if (fillIn) {
    for (let e = 0; e < experts; e++) {
      const own = logits.map((_, t) => t).filter((t) => ranked[t]?.[topK] === e && local[t] !== e);
      own.sort((a, b) => probability(b, e) - probability(a, e) || a - b);
      for (const t of own.slice(0, left[e])) g[t]?.set(e, score(t, e));
    }
  }
  function probability(t: number, e: number) {
    return Math.fround(score(t, e) / sum((logits[t] as number[]).map(Math.exp)));
  }
  return g.map((own) => {
    const total = sum([...own.values()]);
    return new Map([...own].map(([e, value]) => [e, value / total]));
  });
}

type Shape = Pick<RectifyOptions, 'capacity'> & {
  topK: number;
  numDevices?: number;
  intraDevice?: boolean;
  fillIn?: boolean;
};

describe('rectifyRoutes', () => {
  it('follows the equations', () => {
    fc.assert(
      fc.property(
        fc.record({
          tokens: fc.integer({ min: 1, max: 20 }),
          topK: fc.integer({ min: 1, max: 6 }),
          capacity: fc.integer({ min: 0, max: 9 }),
          numDevices: fc.constantFrom(1, 2, 3, 6),
          intraDevice: fc.boolean(),
          fillIn: fc.boolean(),
          seed: fc.integer({ min: 1, max: 1e6 }),
        }),
        ({ tokens, seed, topK, ...own }) => {
          const logits = f32(gaussian(tokens * 6, seed, 2), [tokens, 6]);
          const scores = Tensor.zeros('f32', [tokens, 6]);
          const routes = moeRoute(logits, { topK, scores });
          const result = rectifyRoutes(routes, { ...own, numExperts: 6, scores });
          const rows = Array.from({ length: tokens }, (_, t) =>
            Array.from(logits.data.slice(6 * t, 6 * t + 6)),
          );
          const expected = equations(rows, { ...own, topK });
          list(result).forEach((row, t) => {
            const there = row.filter(({ expert }) => expert >= 0);
            expect(new Set(there.map(({ expert }) => expert)).size).toBe(there.length);
            expect(there.map(({ expert }) => expert).sort()).toEqual(
              [...(expected[t] as Map<number, number>).keys()].sort(),
            );
            for (const { expert, weight } of there) {
              expect(weight).toBeCloseTo(expected[t]?.get(expert) as number, 6);
            }
            for (const { expert, weight } of row) if (expert < 0) expect(weight).toBe(0);
          });
          const { dropped } = limitCapacity(routes, { numExperts: 6, capacity: own.capacity });
          expect(result.dropped).toBe(own.intraDevice ? 0 : dropped);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('routes what was dropped inside the device, and fills what is empty', () => {
    // 4 tokens, 2 on each of 2 devices; experts 0 and 1 on the first, 2 and 3 on the second. All want expert 0.
    const scores = f32(
      [0.7, 0.1, 0.1, 0.1, 0.6, 0.2, 0.1, 0.1, 0.5, 0.1, 0.1, 0.3, 0.4, 0.1, 0.3, 0.2],
      [4, 4],
    );
    const routes = {
      indices: i32([0, 0, 0, 0], [4, 1]),
      weights: f32([0.7, 0.6, 0.5, 0.4], [4, 1]),
    };
    const own = { numExperts: 4, capacity: 1, scores, numDevices: 2, normalize: false };
    const intra = rectifyRoutes(routes, { ...own, fillIn: false });
    expect(intra.indices.toArray()).toEqual([0, 0, 3, 2]);
    expect(intra.weights.toArray()).toEqual([0.7, 0.6, 0.3, 0.3].map(Math.fround));
    expect(intra.dropped).toBe(0);
    // Next best: expert 1 of tokens 0 (0.1) and 1 (0.2), 3 of token 2, 2 of token 3; each has room for one.
    const filled = rectifyRoutes(routes, { ...own, intraDevice: false });
    expect(filled.dropped).toBe(3);
    expect(filled.indices.toArray()).toEqual([0, -1, -1, 1, -1, 3, -1, 2]);
    expect(filled.weights.toArray()).toEqual([0.7, 0, 0, 0.2, 0, 0.3, 0, 0.3].map(Math.fround));
    // Tokens 2 and 3 have come to their candidates by the first.
    const both = rectifyRoutes(routes, own);
    expect(both.indices.toArray()).toEqual([0, -1, 0, 1, 3, -1, 2, -1]);
    // The likeliest stays, and both routes of token 1 count for what is left of them.
    const two = {
      indices: i32([0, 1, 0, 1], [2, 2]),
      weights: f32([0.5, 0.3, 0.6, 0.4], [2, 2]),
    };
    const pair = f32([0.5, 0.3, 0.2, 0.6, 0.4, 0], [2, 3]);
    const options = { numExperts: 3, capacity: 1, scores: pair, fillIn: false };
    const result = rectifyRoutes(two, { ...options, by: 'probability', normalize: false });
    expect(result.indices.toArray()).toEqual([0, -1, 0, 1]);
    expect(result.weights.toArray()).toEqual([1, 0, 0.6, 0.4].map(Math.fround));
    expect(rectifyRoutes(two, { ...options, by: 'probability' }).weights.toArray()).toEqual(
      [1, 0, 0.6, 0.4].map(Math.fround),
    );
  });

  it('takes routes to nowhere and no tokens, and refuses what it cannot', () => {
    const scores = f32([0.5, 0.3, 0.2], [1, 3]);
    const nowhere = { indices: i32([-1, 2], [1, 2]), weights: f32([0, 0.2], [1, 2]) };
    const own = { numExperts: 3, capacity: 1, scores };
    const found = rectifyRoutes(nowhere, own);
    expect(found.indices.toArray()).toEqual([-1, 2, 0]);
    expect(found.dropped).toBe(0);
    const none = { indices: i32([], [0, 2]), weights: f32([], [0, 2]) };
    expect(rectifyRoutes(none, { ...own, scores: f32([], [0, 3]) }).indices.shape).toEqual([0, 2]);
    const cases: [Partial<RectifyOptions>, string, string][] = [
      [
        { numDevices: 2 },
        'BL_OUT_OF_RANGE',
        'numDevices is 2, expected a divisor of 3 (numExperts)',
      ],
      [
        { scores: f32([1, -1, 0], [1, 3]) },
        'BL_OUT_OF_RANGE',
        'scores[0, 1] is -1, expected at least 0',
      ],
      [
        { scores: f32([1, Number.NaN, 0], [1, 3]) },
        'BL_NON_FINITE',
        'scores[0, 1] is NaN, expected a finite number',
      ],
      [
        { scores: f32([1, 0], [1, 2]) },
        'BL_INVALID_SHAPE',
        'scores.shape[1] is 2, expected 3 (= numExperts)',
      ],
    ];
    for (const [change, code, message] of cases) {
      const call = () => rectifyRoutes(nowhere, { ...own, ...change });
      expectError(call, code, `rectifyRoutes: ${message}`);
    }
  });
});
