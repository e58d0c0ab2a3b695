import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  expertCapacity,
  expertChoice,
  type MoERoutes,
  moeRoute,
  nestedCapacities,
  nestedRoute,
  noisyRoute,
  preGate,
  switchAndMixture,
  Tensor,
} from '../../lib/index.js';
import { expectError, strided, worst } from '../reference/op_checks.js';
import { gaussian } from '../reference/random.js';

const f32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('f32', Float32Array.from(values), shape);
const logitsOf = (tokens: number, experts: number, seed: number, steps = 0) =>
  f32(
    gaussian(tokens * experts, seed, 2).map((x) => (steps > 0 ? Math.round(x * steps) / steps : x)),
    [tokens, experts],
  );
const rows = <T>(values: ArrayLike<T>, width: number): T[][] =>
  Array.from({ length: values.length / width }, (_, i) =>
    Array.from(values).slice(i * width, (i + 1) * width),
  );
/** Softmax of a row, in float64. */
function softmax(z: readonly number[]): number[] {
  const powers = z.map((x) => Math.exp(x - Math.max(...z)));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / sum);
}
const arg = (routes: MoERoutes) => rows(routes.indices.data, routes.indices.shape[1] as number);
const weightsOf = (routes: MoERoutes) =>
  rows(routes.weights.data, routes.indices.shape[1] as number);
const sizes = fc.record({
  tokens: fc.integer({ min: 1, max: 20 }),
  experts: fc.integer({ min: 1, max: 9 }),
  seed: fc.integer({ min: 1, max: 1e6 }),
  steps: fc.constantFrom(0, 1),
});

describe('expertChoice', () => {
  it('gives each expert its best tokens', () => {
    fc.assert(
      fc.property(sizes, fc.double({ min: 0, max: 1, noNaN: true }), (own, part) => {
        const capacity = Math.floor(part * own.tokens);
        const logits = logitsOf(own.tokens, own.experts, own.seed, own.steps);
        // f32, as the router rounds them, so that ties are the same.
        const scores = rows(logits.data, own.experts).map((z) => softmax(z).map(Math.fround));
        const routes = expertChoice(logits, { capacity });
        const expected = scores.map(() => [] as [number, number][]);
        for (let e = 0; e < own.experts; e++) {
          scores
            .map((s, t) => [s[e] as number, t] as const)
            .sort((a, b) => b[0] - a[0] || a[1] - b[1])
            .slice(0, capacity)
            .forEach(([s, t]) => {
              expected[t]?.push([e, s]);
            });
        }
        const weights = weightsOf(routes);
        arg(routes).forEach((indices, t) => {
          const chosen = expected[t] as [number, number][];
          expect(indices.filter((e) => e >= 0)).toEqual(chosen.map(([e]) => e));
          const own = (weights[t] as number[]).slice(0, chosen.length);
          expect(
            worst(
              own,
              chosen.map(([, s]) => s),
              0,
              2 ** -22,
            ),
          ).toBeLessThanOrEqual(1);
          expect((weights[t] as number[]).slice(chosen.length).every((w) => w === 0)).toBe(true);
        });
      }),
      { numRuns: 100 },
    );
  });

  it('takes no tokens, f16 with gaps, and refuses what it cannot', () => {
    expect(expertChoice(f32([], [0, 3]), { capacity: 0 }).indices.shape).toEqual([0, 1]);
    const values = gaussian(12, 4);
    const dense = expertChoice(new Tensor('f16', Array.from(values), [4, 3]), { capacity: 2 });
    const gaps = expertChoice(strided('f16', values, [4, 3], [2, 1]), { capacity: 2 });
    expect(gaps.indices.toArray()).toEqual(dense.indices.toArray());
    expectError(
      () => expertChoice(f32([1, 2], [1, 2]), { capacity: 2 }),
      'BL_OUT_OF_RANGE',
      'expertChoice: capacity is 2, expected a whole number from 0 to 1',
    );
  });
});

describe('switchAndMixture', () => {
  it('is the product of both softmaxes, inside one group', () => {
    fc.assert(
      fc.property(
        sizes,
        fc.integer({ min: 1, max: 4 }),
        ({ tokens, experts, seed, steps }, groups) => {
          const switchLogits = logitsOf(tokens, groups, seed, steps);
          const logits = logitsOf(tokens, groups * experts, seed + 1, steps);
          const topK = 1 + (seed % experts);
          const routes = switchAndMixture(switchLogits, logits, { topK });
          const indices = arg(routes);
          const weights = weightsOf(routes);
          for (let t = 0; t < tokens; t++) {
            const z = switchLogits.toArray().slice(t * groups, (t + 1) * groups) as number[];
            const g = z.indexOf(Math.max(...z));
            const all = rows(logits.data, groups * experts)[t] as number[];
            const inner = all.slice(g * experts, (g + 1) * experts);
            const m = softmax(inner);
            const order = inner
              .map((_, e) => e)
              .sort((a, b) => (inner[b] as number) - (inner[a] as number) || a - b);
            const expected = order.slice(0, topK);
            expect(indices[t]).toEqual(expected.map((e) => g * experts + e));
            const values = expected.map((e) => (softmax(z)[g] as number) * (m[e] as number));
            expect(worst(weights[t] as number[], values, 1e-45, 2 ** -21)).toBeLessThanOrEqual(1);
          }
        },
      ),
      { numRuns: 100 },
    );
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 4 }), ({ tokens, experts, seed }, groups) => {
        // One router: the group of the largest sum of the softmax over all experts, whose weights these are.
        const count = groups * experts;
        const logits = logitsOf(tokens, count, seed);
        const topK = 1 + (seed % experts);
        const routes = switchAndMixture(undefined, logits, { topK, groups });
        for (let t = 0; t < tokens; t++) {
          const gates = softmax(rows(logits.data, count)[t] as number[]);
          const sums = Array.from({ length: groups }, (_, g) =>
            gates.slice(g * experts, (g + 1) * experts).reduce((a, b) => a + b, 0),
          );
          const chosen = arg(routes)[t] as number[];
          const g = Math.floor((chosen[0] as number) / experts);
          expect(sums[g]).toBeGreaterThanOrEqual(Math.max(...sums) * (1 - 1e-6));
          const inner = gates.slice(g * experts, (g + 1) * experts).sort((a, b) => b - a);
          const weights = weightsOf(routes)[t] as number[];
          expect(worst(weights, inner.slice(0, topK), 1e-45, 2 ** -19)).toBeLessThanOrEqual(1);
          const own = chosen.map((e) => gates[e] as number);
          expect(worst(weights, own, 1e-45, 2 ** -19)).toBeLessThanOrEqual(1);
        }
      }),
      { numRuns: 100 },
    );
    expectError(
      () => switchAndMixture(undefined, f32([1, 2], [1, 2]), { topK: 1 }),
      'BL_INVALID_ARGUMENT',
      'switchAndMixture: expected one of switchLogits and options.groups',
    );
    expectError(
      () => switchAndMixture(undefined, f32([1, 2, 3], [1, 3]), { topK: 1, groups: 2 }),
      'BL_INVALID_SHAPE',
      'switchAndMixture: logits.shape[1] is 3, expected a multiple of 2 (groups)',
    );
    expectError(
      () => switchAndMixture(f32([1, 2], [1, 2]), f32([1, 2, 3], [1, 3]), { topK: 1 }),
      'BL_INVALID_SHAPE',
      'switchAndMixture: logits.shape[1] is 3, expected a multiple of 2 (switchLogits.shape[1])',
    );
  });
});

describe('noisyRoute', () => {
  it('is top-k without noise, and the same for the same seed whatever the batch', () => {
    const logits = logitsOf(40, 8, 3);
    const quiet = f32(new Float32Array(320).fill(-200), [40, 8]);
    const plain = moeRoute(logits, { topK: 3, scoring: 'softmaxChosen' });
    expect(noisyRoute(logits, quiet, { topK: 3, seed: 5 }).indices.toArray()).toEqual(
      plain.indices.toArray(),
    );
    const loud = logitsOf(40, 8, 4);
    const whole = noisyRoute(logits, loud, { topK: 3, seed: 5 });
    const part = (x: Tensor<'f32'>) => f32(x.data.slice(80), [30, 8]);
    const rest = noisyRoute(part(logits), part(loud), { topK: 3, seed: 5, firstToken: 10 });
    expect(rest.indices.toArray()).toEqual(whole.indices.toArray().slice(30));
    expect(rest.weights.toArray()).toEqual(whole.weights.toArray().slice(30));
    const other = noisyRoute(logits, loud, { topK: 3, seed: 6 });
    expect(other.indices.toArray()).not.toEqual(whole.indices.toArray());
  });

  it('adds normal numbers with the deviation softplus', () => {
    // Two experts, equal logits: the first wins when normal * s0 > normal' * s1, half of the time; and with a
    // logit 1 ahead with probability Phi(1 / (sqrt(2) softplus(0))) = Phi(1.0201) = 0.8462.
    const n = 20000;
    const zero = f32(new Float32Array(2 * n), [n, 2]);
    const ahead = f32(
      Float32Array.from({ length: 2 * n }, (_, i) => 1 - (i % 2)),
      [n, 2],
    );
    const firsts = (logits: Tensor<'f32'>) =>
      noisyRoute(logits, zero, { topK: 1, seed: 9 }).indices.data.filter((e) => e === 0).length / n;
    // Five standard deviations of 20000 trials.
    expect(Math.abs(firsts(zero) - 0.5)).toBeLessThan(0.018);
    expect(Math.abs(firsts(ahead) - 0.8462)).toBeLessThan(0.0128);
  });
});

describe('nestedRoute', () => {
  it('fills experts from the largest down', () => {
    fc.assert(
      fc.property(sizes, ({ tokens, experts, seed, steps }) => {
        const logits = logitsOf(tokens, experts, seed, steps);
        const parts = Array.from(gaussian(experts, seed), (x) => Math.abs(x) + 0.01);
        const total = parts.reduce((a, b) => a + b, 0);
        const capacities = parts.map((part) => part / total);
        const routes = nestedRoute(logits, { capacities, alpha: 0.5 });
        const scores = rows(logits.data, experts).map((z) => softmax(z).map(Math.fround));
        const left = new Set(scores.keys());
        const expected = new Array<number>(tokens).fill(0);
        for (let e = experts - 1; e > 0; e--) {
          const best = [...left].sort(
            (a, b) => (scores[b]?.[e] as number) - (scores[a]?.[e] as number) || a - b,
          );
          for (const t of best.slice(0, Math.floor((capacities[e] as number) * tokens))) {
            expected[t] = e;
            left.delete(t);
          }
        }
        expect(routes.indices.toArray()).toEqual(expected);
        const weights = expected.map((e, t) => 1 + 0.5 * (scores[t]?.[e] as number));
        expect(worst(routes.weights.data, weights, 0, 2 ** -22)).toBeLessThanOrEqual(1);
      }),
      { numRuns: 100 },
    );
  });

  it('finds capacities of a budget', () => {
    const own = [1 / 8, 1 / 4, 1 / 2, 1];
    for (const budget of [1 / 8, 0.2, 0.5, 0.9, 1]) {
      const parts = nestedCapacities(own, budget);
      expect(parts.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
      const spent = parts.reduce((sum, part, i) => sum + part * (own[i] as number), 0);
      expect(spent).toBeCloseTo(budget, 6);
    }
    // Two sizes leave no choice.
    expect(nestedCapacities([1, 3], 2)[0]).toBeCloseTo(0.5, 9);
    // With three and more: any step that keeps both sums makes the paper's objective smaller.
    for (const [beta, delta] of [
      [10, 2],
      [0.5, 2],
      [1, 1],
      [0.2, 5],
    ] as const) {
      const objective = (c: readonly number[]) =>
        c.reduce((sum, x, i) => sum + x / delta ** i - beta * x * Math.log(x), 0);
      const best = nestedCapacities(own, 0.4, { beta, delta });
      for (const [a, b, c] of [
        [0, 1, 2],
        [1, 2, 3],
        [0, 1, 3],
      ] as const) {
        const [x, y, z] = [own[a] as number, own[b] as number, own[c] as number];
        const move = [0, 0, 0, 0];
        [move[a], move[b], move[c]] = [z - y, x - z, y - x]; // adds up to 0, and spends 0
        for (const step of [1e-3, -1e-3]) {
          const other = best.map((part, i) => part + step * (move[i] as number));
          expect(objective(other)).toBeLessThan(objective(best));
        }
      }
    }
    expect(nestedCapacities(own, 0.4)).not.toEqual(nestedCapacities(own, 0.4, { delta: 1 }));
    expectError(
      () => nestedCapacities([2, 1], 1),
      'BL_OUT_OF_RANGE',
      'nestedCapacities: sizes is [2,1], expected rising numbers',
    );
    expectError(
      () => nestedCapacities([1, 2], 1, { beta: 0 }),
      'BL_INVALID_ARGUMENT',
      'nestedCapacities: beta is 0, expected a finite number above 0',
    );
    expectError(
      () => nestedCapacities([1, 2], 3),
      'BL_OUT_OF_RANGE',
      'nestedCapacities: budget is 3, expected 1 to 2 (sizes)',
    );
    expectError(
      () => nestedRoute(f32([1, 2], [1, 2]), { capacities: [0.5, 0.4] }),
      'BL_OUT_OF_RANGE',
      'nestedRoute: capacities add up to 0.9, expected 1',
    );
  });
});

describe('preGate', () => {
  it('routes all layers as the layers would, from one router or one of each', () => {
    const all = logitsOf(6, 12, 8);
    const own = preGate(all, { topK: 2, normalize: true, numLayers: 3, numExperts: 4 });
    for (let layer = 0; layer < 3; layer++) {
      const z = rows(all.data, 12).flatMap((row) => row.slice(4 * layer, 4 * layer + 4));
      const expected = moeRoute(f32(z, [6, 4]), { topK: 2, normalize: true });
      expect(own.routes(layer).indices.toArray()).toEqual(expected.indices.toArray());
      expect(own.routes(layer).weights.toArray()).toEqual(expected.weights.toArray());
      expect(own.expertsOf(layer)).toEqual([...new Set(expected.indices.toArray())].sort());
    }
    const one = preGate(all, { topK: 1, numLayers: 3, numExperts: 12 });
    expect(one.routes(2).indices.toArray()).toEqual(one.routes(0).indices.toArray());
    const uses = one.accesses();
    const count = one.expertsOf(0).length;
    expect(uses.length).toBe(3 * count);
    expect(uses.map(({ next }) => next)).toEqual([
      ...Array.from({ length: 2 * count }, (_, i) => i + count),
      ...new Array<number>(count).fill(Number.POSITIVE_INFINITY),
    ]);
    expect(uses.slice(0, count).reduce((sum, { tokens }) => sum + tokens, 0)).toBe(6);
    const keys = one.batchOrder().map((t) => one.routes(0).indices.data[t] as number);
    expect(keys).toEqual([...keys].sort((a, b) => a - b));
    expectError(
      () => preGate(all, { topK: 1, numLayers: 2, numExperts: 4 }),
      'BL_INVALID_SHAPE',
      'preGate: logits.shape[1] is 12, expected 4 (numExperts) or 8 (of all layers)',
    );
  });
});

describe('expertCapacity', () => {
  it('is what all experts get, times the factor, rounded up', () => {
    expect(expertCapacity({ tokens: 10, topK: 2, numExperts: 8, factor: 1 })).toBe(3);
    expect(expertCapacity({ tokens: 0, topK: 2, numExperts: 8, factor: 1 })).toBe(0);
    expectError(
      () => expertCapacity({ tokens: 1, topK: 1, numExperts: 1, factor: -1 }),
      'BL_OUT_OF_RANGE',
      'expertCapacity: factor is -1, expected at least 0',
    );
  });
});
