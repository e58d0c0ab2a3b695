import { describe, expect, it } from 'vitest';
import { Tensor } from '../../lib/index.js';
import { bestAssignment } from '../../lib/nn/moe/compression/assignment.js';
import { type EvolveState, evolveExperts } from '../../lib/nn/moe/compression/evolve.js';
import { applyExpertPlan } from '../../lib/nn/moe/compression/expert_plan.js';
import {
  type DenseExpert,
  type ExpertLayer,
  permuteNeurons,
} from '../../lib/nn/moe/compression/layer.js';
import { alignActivations, mergeExperts } from '../../lib/nn/moe/compression/merge.js';
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

  it('matches neurons by what they do, where weights mislead', () => {
    // Tokens never have the last channel, so what weights have there means nothing; and each neuron's up is scaled, its
    // down by the inverse.
    const inputs = f32(
      gaussian(40 * 6, 77).map((x, i) => (i % 6 === 5 ? 0 : x)),
      [40, 6],
    );
    const own = expert(1);
    const scales = [1, 3, 0.5, 4, 0.3];
    const noise = gaussian(60, 78, 20);
    const changed = (matrix: Tensor<'f32'>, from: number, factor: (row: number) => number) =>
      f32(
        matrix.data.map((x, i) =>
          i % 6 === 5 ? (noise[from + i] as number) : x * factor(Math.floor(i / 6)),
        ),
        [5, 6],
      );
    const scaled: DenseExpert = {
      gate: changed(own.gate as Tensor<'f32'>, 0, () => 1),
      up: changed(own.up, 30, (row) => scales[row] as number),
      down: f32(
        own.down.data.map((x, i) => x / (scales[i % 5] as number)),
        [6, 5],
      ),
    };
    const moved = permuteNeurons(scaled, [3, 1, 4, 0, 2]);
    const order = alignActivations(own, moved, inputs, 'silu');
    expect(order).toEqual([3, 1, 4, 0, 2].map((_, i, all) => all.indexOf(i)));
    const router = f32(gaussian(12, 9), [2, 6]);
    const layer = { router, experts: [own, moved] };
    const merged = mergeExperts(layer, { usage: [1, 1], groups: 1, inputs });
    const used = ({ gate }: DenseExpert) =>
      gate?.data.filter((_, i) => i % 6 !== 5) as Float32Array;
    const off = (made: ExpertLayer) =>
      worst(used(made.experts[0] as DenseExpert), used(own), 0, 2 ** -23);
    expect(off(merged)).toBeLessThanOrEqual(1);
    expect(off(mergeExperts(layer, { usage: [1, 1], groups: 1 }))).toBeGreaterThan(1);
    for (const shape of [
      [1, 6],
      [2, 5],
    ]) {
      expectError(
        () => mergeExperts(layer, { usage: [1, 1], groups: 1, inputs: Tensor.zeros('f32', shape) }),
        'BL_INVALID_SHAPE',
        `mergeExperts: inputs.shape is [${shape}], expected at least 2 tokens and 6 (= router.shape[1])`,
      );
    }
  });

  it('finds the assignment of the highest sum of correlations', () => {
    for (let seed = 1; seed <= 12; seed++) {
      const inputs = f32(gaussian(20 * 6, 100 + seed), [20, 6]);
      const pair = [expert(seed), expert(seed + 50)] as const;
      const activations = pair.map(({ gate, up }) =>
        Array.from({ length: 5 }, (_, n) =>
          Array.from({ length: 20 }, (__, t) => {
            const dot = (w: Tensor<'f32'>) =>
              [0, 1, 2, 3, 4, 5].reduce(
                (sum, h) =>
                  sum + (w.data[n * 6 + h] as number) * (inputs.data[t * 6 + h] as number),
                0,
              );
            const z = dot(gate as Tensor<'f32'>);
            return (z / (1 + Math.exp(-z))) * dot(up);
          }),
        ),
      );
      const correlation = (a: number[], b: number[]) => {
        const mean = (x: number[]) => x.reduce((sum, value) => sum + value, 0) / x.length;
        const [ma, mb] = [mean(a), mean(b)];
        const sum = (f: (i: number) => number) => a.reduce((all, _, i) => all + f(i), 0);
        const [da, db] = [
          (i: number) => (a[i] as number) - ma,
          (i: number) => (b[i] as number) - mb,
        ];
        return (
          sum((i) => da(i) * db(i)) / Math.sqrt(sum((i) => da(i) ** 2) * sum((i) => db(i) ** 2))
        );
      };
      const worth = (order: number[]) =>
        order.reduce(
          (sum, other, own) =>
            sum +
            correlation(activations[0]?.[own] as number[], activations[1]?.[other] as number[]),
          0,
        );
      const found = alignActivations(...pair, inputs, 'silu');
      expect(worth(found)).toBeCloseTo(Math.max(...permutations(5).map(worth)), 4);
    }
    // Neurons that never change have no correlation; nothing becomes NaN.
    const inputs = Tensor.zeros('f32', [3, 6]);
    const order = alignActivations(expert(1), expert(2), inputs, 'silu');
    expect([...order].sort()).toEqual([0, 1, 2, 3, 4]);
  });

  it('refuses weights whose products are no numbers, which no assignment ends with', () => {
    for (const value of [Number.NaN, 1e38]) {
      const [a, b] = [expert(1, 8, 6), expert(2, 8, 6)];
      for (const one of [a, b]) one.up.data[0] = value;
      expectError(
        () =>
          mergeExperts(
            { router: f32([1, 0, 0, 1, ...new Array(12).fill(0)], [2, 8]), experts: [a, b] },
            { usage: [1, 1], groups: 1 },
          ),
        'BL_NON_FINITE',
        `mergeExperts: the product of neurons 0 and 0 is ${value > 1 ? 'Infinity' : 'NaN'}, expected a finite number`,
      );
    }
  });

  it('names what is missing', () => {
    const layer = {
      router: f32([1, 2, 3, 4], [2, 2]),
      experts: [expert(1, 2, 3), expert(2, 2, 3)],
    };
    const cases: [() => unknown, string][] = [
      [
        () => pruneByUsage(undefined as never, [1], 1),
        'pruneByUsage: layer is undefined, expected an object',
      ],
      [
        () => pruneByUsage({ ...layer, experts: 2 as never }, [1], 1),
        'pruneByUsage: experts is 2, expected an array',
      ],
      [
        () => pruneByUsage(layer, undefined as never, 1),
        'pruneByUsage: counts is undefined, expected an object',
      ],
      [
        () => mergeExperts(layer, {} as never),
        'mergeExperts: usage is undefined, expected an object',
      ],
      [
        () => mergeExperts(layer, { usage: [1, 1], groups: 1, activation: 'tanh' as never }),
        'mergeExperts: activation is "tanh", expected silu, gelu, relu2',
      ],
      [
        () => applyExpertPlan(layer, undefined as never),
        'applyExpertPlan: plan is undefined, expected an object',
      ],
    ];
    for (const [body, message] of cases) expectError(body, 'BL_INVALID_ARGUMENT', message);
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

  it('goes on after losses that JSON has no numbers for', async () => {
    // The best are infinitely bad, so that what is read back must be as bad.
    const bad = (options: object) => {
      let calls = 0;
      return evolveExperts({
        ...{ numExperts: [6], keep: 2, pruneSteps: 6, mergeSteps: 6, populationSize: 4, seed: 2 },
        evaluate: (plans) =>
          (plans[0]?.route[0]?.[0] ?? 0) > 0 ? Infinity : calls++ % 3 === 0 ? Number.NaN : Infinity,
        ...options,
      });
    };
    const states: string[] = [];
    const whole = await bad({
      onProgress: (state: EvolveState) => states.push(JSON.stringify(state)),
    });
    expect(await bad({ state: JSON.parse(states[5] as string) })).toEqual(whole);
  });

  it('refuses what is no number, no step and no state of its own', async () => {
    const options = {
      numExperts: [4, 4],
      keep: 2,
      pruneSteps: 1,
      mergeSteps: 1,
      populationSize: 2,
    };
    const run = (change: object) => evolveExperts({ ...options, evaluate: () => 1, ...change });
    const state = await run({});
    const message = 'evolveExperts: state is none of a search with these options';
    const [first, second] = state.population;
    for (const odd of [
      { state: { ...state, version: 2 } },
      { state: { ...state, drawn: -1 } },
      { state: { ...state, population: [first] } },
      { state: { ...state, population: [{ ...first, loss: null }, second] } },
      { state: { ...state, population: [{ ...first, plans: first?.plans.slice(1) }, second] } },
      { state, keep: 3 },
      { state, numExperts: [4, 5] },
      { state, active: 3 },
    ]) {
      await expect(run(odd)).rejects.toThrow(message);
    }
    await expect(run({ evaluate: () => undefined })).rejects.toThrow(
      'evolveExperts: evaluate gave undefined, expected a number',
    );
    await expect(run({ numExperts: [] })).rejects.toThrow(
      'evolveExperts: layers of numExperts is 0, expected a whole number of at least 1',
    );
    await expect(run({ pruneSteps: undefined })).rejects.toThrow(
      'evolveExperts: pruneSteps is undefined, expected a whole number of at least 0',
    );
  });

  it('shares active experts out between layers, as many as it was told', async () => {
    // What a layer is worth falls with every further active expert; layer 0 needs three of them.
    const worth = [
      [9, 4, 1],
      [1, 0.9, 0.8],
      [1.2, 1, 0.9],
    ];
    const seen: number[] = [];
    const many = (options: object) =>
      evolveExperts({
        ...{ numExperts: [6, 6, 6], keep: 3, active: 5, pruneSteps: 60, mergeSteps: 20, seed: 5 },
        evaluate: (plans) => {
          seen.push(plans.reduce((sum, { topK = 0 }) => sum + topK, 0));
          for (const { topK } of plans) expect([1, 2, 3]).toContain(topK);
          return plans.reduce(
            (sum, { topK = 0 }, i) => sum + ((worth[i] as number[])[topK - 1] as number),
            0,
          );
        },
        ...options,
      });
    const state = await many({});
    expect(new Set(seen)).toEqual(new Set([5]));
    expect(state.population[0]?.plans.map(({ topK }) => topK)).toEqual([3, 1, 1]);
    const states: EvolveState[] = [];
    await many({ onProgress: (now: EvolveState) => states.push(now) });
    for (const at of [5, 40, 90]) {
      expect(await many({ state: JSON.parse(JSON.stringify(states[at])) })).toEqual(state);
    }
    // As few or as many as there can be.
    for (const active of [3, 9]) {
      const [best] = (await many({ active })).population;
      expect(best?.plans.map(({ topK }) => topK)).toEqual(new Array(3).fill(active / 3));
    }
    for (const active of [2, 10, 4.5]) {
      await expect(many({ active })).rejects.toThrow(
        `evolveExperts: active is ${active}, expected a whole number from 3 to 9 (1 to keep for each of 3 layers)`,
      );
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
    expect(made.topK).toBeUndefined();
    expect(applyExpertPlan(layer, { ...plan, topK: 2 }).topK).toBe(2);
    expect(made.experts[1]).toBe(layer.experts[2]);
    const [a, b] = layer.experts as [DenseExpert, DenseExpert];
    const mean = a.down.data.map((x, i) => (x + (b.down.data[i] as number)) / 2);
    expect(
      worst((made.experts[0] as DenseExpert).down.data, mean, 1e-9, 2 ** -23),
    ).toBeLessThanOrEqual(1);
    const widths = { ...layer, experts: [1, 11, 21].map((s) => expert(s, 2, s === 21 ? 5 : 3)) };
    expect(applyExpertPlan(widths, plan).experts[1]).toBe(widths.experts[2]);
    expectError(
      () =>
        applyExpertPlan(widths, {
          route: plan.route,
          merge: [
            [1, 0, 1],
            [0, 1, 0],
          ],
        }),
      'BL_INVALID_SHAPE',
      'applyExpertPlan: experts that are added up differ in their shapes, expected the same width and all or none with a gate',
    );
    const biased = applyExpertPlan({ ...layer, bias: f32([1, 2, 4], [3]) }, plan);
    expect(biased.bias?.toArray()).toEqual([3, 4]);
    expectError(
      () => applyExpertPlan(layer, { ...plan, merge: [[1, 0]] }),
      'BL_INVALID_SHAPE',
      'applyExpertPlan: plan.merge is not [2][3] (kept, experts)',
    );
  });
});
