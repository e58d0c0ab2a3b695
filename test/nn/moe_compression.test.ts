import { describe, expect, it } from 'vitest';
import { Tensor } from '../../lib/index.js';
import { bestAssignment } from '../../lib/nn/moe/compression/assignment.js';
import {
  applyExpertPlan,
  type EvolveState,
  evolveExperts,
} from '../../lib/nn/moe/compression/evolve.js';
import { type DenseExpert, permuteNeurons } from '../../lib/nn/moe/compression/layer.js';
import { mergeExperts } from '../../lib/nn/moe/compression/merge.js';
import { pruneByUsage } from '../../lib/nn/moe/compression/prune.js';
import { expectError, worst } from '../reference/op_checks.js';
import { gaussian } from '../reference/random.js';

const f32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('f32', Float32Array.from(values), shape);
const expert = (seed: number, hidden = 6, ffn = 5): DenseExpert => ({
  gate: f32(gaussian(ffn * hidden, seed), [ffn, hidden]),
  up: f32(gaussian(ffn * hidden, seed + 1), [ffn, hidden]),
  down: f32(gaussian(ffn * hidden, seed + 2), [hidden, ffn]),
});

function permutations(n: number): number[][] {
  if (n === 0) return [[]];
  return permutations(n - 1).flatMap((rest) =>
    Array.from({ length: n }, (_, at) => [...rest.slice(0, at), n - 1, ...rest.slice(at)]),
  );
}

describe('bestAssignment', () => {
  it('is the best of all permutations', () => {
    for (let n = 0; n <= 6; n++) {
      for (let seed = 1; seed <= 10; seed++) {
        const gain = gaussian(n * n, seed);
        const worth = (order: number[]) =>
          order.reduce((sum, c, r) => sum + (gain[r * n + c] as number), 0);
        const found = bestAssignment(gain, n);
        expect([...found].sort()).toEqual(Array.from({ length: n }, (_, i) => i));
        expect(worth(found)).toBeCloseTo(Math.max(...permutations(n).map(worth)), 9);
      }
    }
  });
});

describe('pruneByUsage', () => {
  it('keeps the most used experts with their rows', () => {
    const layer = {
      router: f32(gaussian(24, 1), [4, 6]),
      experts: [1, 11, 21, 31].map((s) => expert(s)),
    };
    const pruned = pruneByUsage(layer, [3, 0, 7, 3], 2);
    expect(pruned.kept).toEqual([0, 2]);
    expect(pruned.experts).toEqual([layer.experts[0], layer.experts[2]]);
    expect(pruned.router.toArray()).toEqual([
      ...layer.router.data.slice(0, 6),
      ...layer.router.data.slice(12, 18),
    ]);
    expectError(
      () => pruneByUsage(layer, [3, 0, 7, 3], 5),
      'BL_OUT_OF_RANGE',
      'pruneByUsage: keep is 5, expected a whole number from 1 to 4',
    );
  });
});

describe('mergeExperts', () => {
  it('merges permuted copies without loss, and keeps the dominant rows', () => {
    const [a, b] = [expert(1), expert(41)];
    const router = f32(gaussian(24, 9), [4, 6]);
    for (let i = 0; i < 6; i++) {
      router.data[6 + i] = 2 * (router.data[i] as number);
      router.data[18 + i] = 2 * (router.data[12 + i] as number);
    }
    const experts = [a, permuteNeurons(a, [3, 1, 4, 0, 2]), permuteNeurons(b, [4, 3, 2, 1, 0]), b];
    const merged = mergeExperts({ router, experts }, { usage: [5, 1, 2, 9], groups: 2 });
    expect(merged.groupOf).toEqual([0, 0, 1, 1]);
    expect(merged.dominant).toEqual([0, 3]);
    for (const [own, from] of [
      [merged.experts[0], a],
      [merged.experts[1], b],
    ] as const) {
      for (const part of ['gate', 'up', 'down'] as const) {
        const values = (from[part] as Tensor<'f32'>).data;
        expect(
          worst(((own as DenseExpert)[part] as Tensor<'f32'>).data, values, 0, 2 ** -23),
        ).toBeLessThanOrEqual(1);
      }
    }
    expect(merged.router.toArray().slice(6)).toEqual([...router.data.slice(18)]);
  });

  it('refuses experts that do not fit each other', () => {
    const router = f32(gaussian(12, 9), [2, 6]);
    expectError(
      () =>
        mergeExperts(
          { router, experts: [expert(1), expert(5, 6, 4)] },
          { usage: [1, 1], groups: 1 },
        ),
      'BL_INVALID_SHAPE',
      'mergeExperts: experts of a group differ in their shapes, expected the same width and all or none with a gate',
    );
  });
});

describe('evolveExperts', () => {
  // Planted: experts 1 and 4 of layer 0, 0 and 5 of layer 1; then expert 1 with half of expert 2.
  const planted = [
    [1, 4],
    [0, 5],
  ];
  const search = (pruneSteps: number, mergeSteps: number, more: object = {}) =>
    evolveExperts({
      ...{ numExperts: [6, 6], keep: 2, pruneSteps, mergeSteps, populationSize: 8, seed: 3 },
      evaluate: (plans) => {
        let loss = 0;
        plans.forEach(({ merge }, layer) => {
          merge.forEach((row, i) => {
            row.forEach((factor, e) => {
              const own = e === planted[layer]?.[i] ? 1 : 0;
              const half = layer === 0 && i === 0 && e === 2 ? 0.5 : 0;
              loss += (factor - own - half) ** 2;
            });
          });
        });
        return loss;
      },
      ...more,
    });

  it('finds what is planted: the experts, then their merging', async () => {
    const pruned = await search(400, 0);
    const kept = pruned.population[0]?.plans.map(({ route }) => route.map((row) => row.indexOf(1)));
    expect(kept).toEqual(planted);
    expect(pruned.population[0]?.loss).toBeCloseTo(0.25, 12);
    const merged = await search(400, 1500);
    expect(merged.population[0]?.loss).toBeLessThan(0.15);
  });

  it('goes on from JSON to the same end', async () => {
    const whole = await search(60, 60);
    const states: EvolveState[] = [];
    await search(60, 60, { onProgress: (state: EvolveState) => states.push(state) });
    expect(states).toHaveLength(8 + 120);
    for (const at of [3, 30, 100]) {
      const state = JSON.parse(JSON.stringify(states[at]));
      expect(await search(60, 60, { state })).toEqual(whole);
    }
  });

  it('applies a plan', () => {
    const layer = {
      router: f32([1, 2, 3, 4, 5, 6], [3, 2]),
      experts: [1, 11, 21].map((s) => expert(s, 2, 3)),
    };
    const plan = {
      route: [
        [1, 1, 0],
        [0, 0, 1],
      ],
      merge: [
        [0.5, 0.5, 0],
        [0, 0, 1],
      ],
    };
    const made = applyExpertPlan(layer, plan);
    expect(made.router.toArray()).toEqual([4, 6, 5, 6]);
    expect(made.experts[1]).toBe(layer.experts[2]);
    const [a, b] = layer.experts as [DenseExpert, DenseExpert];
    const mean = a.down.data.map((x, i) => (x + (b.down.data[i] as number)) / 2);
    expect(
      worst((made.experts[0] as DenseExpert).down.data, mean, 1e-9, 2 ** -23),
    ).toBeLessThanOrEqual(1);
    expectError(
      () => applyExpertPlan(layer, { ...plan, merge: [[1, 0]] }),
      'BL_INVALID_SHAPE',
      'applyExpertPlan: plan.merge is not [2][3] (kept, experts)',
    );
  });
});
