import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { limitCapacity, moeRoute, RouterLoad, routerZLoss, Tensor } from '../../lib/index.js';
import { expectError, worst } from '../reference/op_checks.js';
import { gaussian } from '../reference/random.js';

const f32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('f32', Float32Array.from(values), shape);
const i32 = (values: number[], shape: number[]) => new Tensor('i32', values, shape);

function routed(tokens: number, experts: number, topK: number, seed: number) {
  const logits = f32(gaussian(tokens * experts, seed, 2), [tokens, experts]);
  const scores = Tensor.zeros('f32', [tokens, experts]);
  return { logits, scores, routes: moeRoute(logits, { topK, scores }) };
}

describe('limitCapacity', () => {
  it('keeps at most the capacity, the first or the heaviest', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 30 }),
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: 0, max: 12 }),
        fc.constantFrom('position' as const, 'probability' as const),
        fc.integer({ min: 1, max: 1e6 }),
        (tokens, numExperts, capacity, by, seed) => {
          const topK = 1 + (seed % numExperts);
          const { routes } = routed(tokens, numExperts, topK, seed);
          const limited = limitCapacity(routes, { numExperts, capacity, by });
          const kept = limited.indices.data;
          let dropped = 0;
          for (let e = 0; e < numExperts; e++) {
            const own = [...routes.indices.data.keys()].filter((i) => routes.indices.data[i] === e);
            const w = (i: number) => routes.weights.data[i] as number;
            const place = (i: number) => (i % topK) * tokens + Math.floor(i / topK);
            own.sort((a, b) => (by === 'probability' ? w(b) - w(a) : 0) || place(a) - place(b));
            for (const [rank, i] of own.entries()) {
              const stays = rank < capacity;
              if (!stays) dropped++;
              expect(kept[i]).toBe(stays ? e : -1);
              expect(limited.weights.data[i]).toBe(stays ? w(i) : 0);
            }
          }
          expect(limited.dropped).toBe(dropped);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('refuses what is no route', () => {
    const routes = { indices: i32([0, 3], [2, 1]), weights: f32([1, 1], [2, 1]) };
    expectError(
      () => limitCapacity(routes, { numExperts: 3, capacity: 1 }),
      'BL_OUT_OF_RANGE',
      'limitCapacity: routes.indices[1, 0] is 3, expected -1 to 2',
    );
    expectError(
      () => limitCapacity({ ...routes, weights: f32([1], [1, 1]) }, { numExperts: 4, capacity: 1 }),
      'BL_INVALID_SHAPE',
      'limitCapacity: routes.weights.shape[0] is 1, expected 2 (= indices.shape[0])',
    );
    expectError(
      () => limitCapacity(routes, { numExperts: 4, capacity: 1, by: 'luck' as 'position' }),
      'BL_INVALID_ARGUMENT',
      'limitCapacity: by is "luck", expected position, probability',
    );
  });
});

describe('routerZLoss', () => {
  it('is the mean square of log-sum-exp', () => {
    const { logits } = routed(7, 5, 1, 3);
    let total = 0;
    for (let t = 0; t < 7; t++) {
      const row = [...logits.data.slice(5 * t, 5 * t + 5)];
      total += Math.log(row.reduce((sum, z) => sum + Math.exp(z), 0)) ** 2;
    }
    expect(routerZLoss(logits)).toBeCloseTo(total / 7, 12);
    expect(routerZLoss(f32([3e38, 3e38], [1, 2]))).toBeGreaterThan(8e76);
    expect(routerZLoss(f32([], [0, 4]))).toBe(0);
    expectError(
      () => routerZLoss(f32([0, Number.NaN], [1, 2])),
      'BL_NON_FINITE',
      'routerZLoss: logits[0, 1] is NaN, expected a finite number',
    );
  });
});

describe('RouterLoad', () => {
  it('gives the loss of one batch, and of all batches and machines', () => {
    const batches = [1, 2, 3].map((seed) => routed(9, 4, 2, seed));
    const whole = new RouterLoad(4);
    const machines = batches.map(({ routes, scores }) => {
      whole.add(routes, scores);
      const own = new RouterLoad(4);
      own.add(routes, scores);
      const f = [0, 1, 2, 3].map(
        (e) => routes.indices.toArray().filter((x) => x === e).length / 18,
      );
      const p = [0, 1, 2, 3].map(
        (e) => scores.data.reduce((sum, s, i) => sum + (i % 4 === e ? s : 0), 0) / 9,
      );
      const loss = 4 * f.reduce((sum, x, e) => sum + x * (p[e] as number), 0);
      expect(worst([own.balancingLoss()], [loss], 0, 1e-6)).toBeLessThanOrEqual(1);
      return own;
    });
    const merged = RouterLoad.fromJSON(JSON.parse(JSON.stringify(machines[0])));
    merged.merge(machines[1] as RouterLoad);
    merged.merge(JSON.parse(JSON.stringify(machines[2])));
    expect(merged.balancingLoss()).toBeCloseTo(whole.balancingLoss(), 12);
    expect(merged.statistics().counts).toEqual(whole.statistics().counts);
    expect(whole.statistics().counts.reduce((a, b) => a + b, 0)).toBe(54);
  });

  it('knows balance, imbalance, dropped routes and overflow', () => {
    const equal = new RouterLoad(4);
    const even = f32(new Float32Array(16).fill(0.25), [4, 4]);
    const weights = f32([1, 1, 1, 1], [4, 1]);
    equal.add({ indices: i32([0, 1, 2, 3], [4, 1]), weights }, even);
    expect(equal.balancingLoss()).toBe(1);
    const flat = equal.statistics();
    expect(flat.loadCV).toBe(0);
    expect(flat.loadEntropy).toBeCloseTo(Math.log(4), 12);
    expect(flat.scoreEntropy).toBeCloseTo(Math.log(4), 12);
    const one = new RouterLoad(4);
    const sure = f32([1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], [4, 4]);
    one.add({ indices: i32([0, 0, 0, -1], [4, 1]), weights }, sure);
    expect(one.balancingLoss()).toBe(4);
    expect(one.statistics({ capacity: 2 })).toEqual({
      ...{
        tokens: 4,
        counts: [3, 0, 0, 0],
        loadCV: expect.closeTo(Math.sqrt(3), 12),
        maxLoad: 4,
        loadEntropy: 0,
      },
      ...{ scoreEntropy: 0, dropped: 1, overflow: 1 },
    });
    expect(new RouterLoad(2).balancingLoss()).toBe(0);
    expect(new RouterLoad(2).statistics().loadCV).toBe(0);
  });

  it('refuses states that are not its own', () => {
    const state = new RouterLoad(2).toJSON();
    const load = new RouterLoad(2);
    expectError(
      () => load.merge(new RouterLoad(3)),
      'BL_INVALID_SHAPE',
      'RouterLoad.merge: numExperts is 3, expected 2',
    );
    for (const odd of [
      { counts: [1] },
      { scores: [0, -1] },
      { tokens: Number.NaN },
      { counts: 3 },
    ]) {
      expectError(
        () => load.merge({ ...state, ...odd } as typeof state),
        'BL_INVALID_ARGUMENT',
        'RouterLoad.merge: the state is not what RouterLoad.toJSON gives: 2 counts and scores, finite and at least 0',
      );
    }
    expect(load.toJSON()).toEqual(state);
  });
});
