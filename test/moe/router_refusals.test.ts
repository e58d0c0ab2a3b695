// What routers that read values in JavaScript refuse, by the name of operator and argument.
import { describe, expect, it } from 'vitest';
import {
  add,
  expertCapacity,
  expertChoice,
  limitCapacity,
  type MoERoutes,
  moeRoute,
  nestedCapacities,
  nestedRoute,
  noisyRoute,
  preGate,
  RouterLoad,
  rectifyRoutes,
  routerZLoss,
  sequence,
  switchAndMixture,
  Tensor,
} from '../../lib/index.js';
import { expectError } from '../reference/op_checks.js';

const f32 = (values: number[], shape: number[]) => new Tensor('f32', values, shape);
const logits = f32([1, 2, 3, 6, 5, 4], [2, 3]);
const scores = Tensor.zeros('f32', [2, 3]);
const routes = moeRoute(logits, { topK: 2, scores });

describe('routers', () => {
  it('name their own arguments', () => {
    const cases: [() => unknown, string, string][] = [
      [
        () => expertChoice(f32([Number.NaN, 1], [1, 2]), { capacity: 1 }),
        'BL_NON_FINITE',
        'expertChoice: logits[0, 0] is NaN, expected a number',
      ],
      [
        () => expertChoice(new Tensor('i32', [1, 2], [1, 2]) as never, { capacity: 1 }),
        'BL_INVALID_DTYPE',
        'expertChoice: logits.dtype is i32, expected f32 or f16 or bf16',
      ],
      [
        () => expertChoice(f32([], [2, 0]), { capacity: 1 }),
        'BL_INVALID_SHAPE',
        'expertChoice: logits.shape[1] is 0, expected at least 1 expert',
      ],
      [
        () => switchAndMixture(f32([0, Infinity], [1, 2]), f32([1, 2], [1, 2]), { topK: 1 }),
        'BL_NON_FINITE',
        'switchAndMixture: switchLogits[0, 1] is Infinity, expected a number',
      ],
      [
        () =>
          switchAndMixture(undefined, f32([-Infinity, -Infinity], [1, 2]), { topK: 1, groups: 1 }),
        'BL_NON_FINITE',
        'switchAndMixture: logits[0] are all -infinity, expected a number among them',
      ],
      [
        () => switchAndMixture(undefined, undefined as never, { topK: 1, groups: 1 }),
        'BL_INVALID_ARGUMENT',
        'switchAndMixture: logits is undefined, expected a Tensor',
      ],
      [
        () => preGate(undefined as never, { topK: 1, numLayers: 1, numExperts: 3 }),
        'BL_INVALID_ARGUMENT',
        'preGate: logits is undefined, expected a Tensor',
      ],
      [
        () => preGate(f32([1, 2], [2]), { topK: 1, numLayers: 2, numExperts: 3 }),
        'BL_INVALID_SHAPE',
        'preGate: logits.rank is 1, expected 2',
      ],
      [
        () => preGate(logits, { topK: 1, numLayers: 2 ** 31 - 1, numExperts: 3 }),
        'BL_OUT_OF_RANGE',
        'preGate: numLayers is 2147483647, expected a whole number from 1 to 65536',
      ],
      [
        () => nestedRoute(logits, { capacities: {} as never }),
        'BL_INVALID_ARGUMENT',
        'nestedRoute: capacities is an Object, expected an array',
      ],
      [
        () => nestedCapacities({} as never, 1),
        'BL_INVALID_ARGUMENT',
        'nestedCapacities: sizes is an Object, expected an array',
      ],
      [
        () => expertCapacity(undefined as never),
        'BL_INVALID_ARGUMENT',
        'expertCapacity: shape is undefined, expected an object',
      ],
      [
        () => new RouterLoad(2 ** 31 - 1),
        'BL_OUT_OF_RANGE',
        'RouterLoad: numExperts is 2147483647, expected a whole number from 1 to 16777216',
      ],
      [
        () => new RouterLoad(3).add(routes, f32([1, 0, 0, 1, -1, 0], [2, 3])),
        'BL_OUT_OF_RANGE',
        'RouterLoad.add: scores[1, 1] is -1, expected at least 0',
      ],
      [
        () => moeRoute(f32([1, 2], [2]), { topK: 1.5 }),
        'BL_OUT_OF_RANGE',
        'moeRoute: topK is 1.5, expected 1 to the number of experts (logits.shape[1])',
      ],
      [
        () => moeRoute(logits, { topK: 1, numGroups: 1.5 }),
        'BL_OUT_OF_RANGE',
        'moeRoute: numGroups is 1.5, expected a divisor of 3 (logits.shape[1])',
      ],
      [
        () => moeRoute(logits, { topK: 1, scale: '2' as never }),
        'BL_INVALID_ARGUMENT',
        'moeRoute: scale is "2", expected a finite number',
      ],
      [
        () => moeRoute(logits, { topK: 1, numGroups: 0 }),
        'BL_OUT_OF_RANGE',
        'moeRoute: numGroups is 0, expected a divisor of 3 (logits.shape[1])',
      ],
      [
        () => moeRoute(logits, { topK: 1, topGroups: 2 }),
        'BL_OUT_OF_RANGE',
        'moeRoute: topGroups is 2, expected 1 to 1 (numGroups)',
      ],
      [
        () => moeRoute(logits, { topK: 1, numGroups: 3, topGroups: 0 }),
        'BL_OUT_OF_RANGE',
        'moeRoute: topGroups is 0, expected 1 to 3 (numGroups)',
      ],
    ];
    for (const [body, code, message] of cases) expectError(body, code, message);
  });

  it('refuse weights that are no numbers where weights decide', () => {
    const odd: MoERoutes = { ...routes, weights: f32([1, 1, Number.NaN, 1], [2, 2]) };
    const options = { numExperts: 3, capacity: 1, by: 'probability' } as const;
    const message = 'routes.weights[1, 0] is NaN, expected a number';
    expectError(() => limitCapacity(odd, options), 'BL_NON_FINITE', `limitCapacity: ${message}`);
    expectError(
      () => rectifyRoutes(odd, { ...options, scores }),
      'BL_NON_FINITE',
      `rectifyRoutes: ${message}`,
    );
    expect(limitCapacity(odd, { ...options, by: 'position' }).dropped).toBe(1);
  });

  it('refuse to be recorded, where values are not there yet', async () => {
    const quiet = f32(new Array<number>(6).fill(-100), [2, 3]);
    const bodies: [string, () => unknown][] = [
      ['expertChoice', () => expertChoice(add(logits, logits), { capacity: 1 })],
      ['switchAndMixture', () => switchAndMixture(undefined, logits, { topK: 1, groups: 3 })],
      ['noisyRoute', () => noisyRoute(logits, quiet, { topK: 1, seed: 1 })],
      ['nestedRoute', () => nestedRoute(logits, { capacities: [0.5, 0.5, 0] })],
      ['preGate', () => preGate(logits, { topK: 1, numLayers: 3, numExperts: 1 })],
      ['limitCapacity', () => limitCapacity(routes, { numExperts: 3, capacity: 1 })],
      ['routerZLoss', () => routerZLoss(logits)],
      ['RouterLoad.add', () => new RouterLoad(3).add(routes, scores)],
    ];
    for (const [name, body] of bodies) {
      await expect(sequence(body)).rejects.toMatchObject({
        code: 'BL_INVALID_ARGUMENT',
        message: `${name}: called within a sequence, expected outside: tensors may not have the values yet that it reads`,
      });
    }
  });
});

describe('RouterLoad', () => {
  it('reads back what it writes, whatever the entropy is rounded to', () => {
    for (let i = 1; i < 1000; i++) {
      const score = f32([i / 1000], [1, 1]);
      const load = new RouterLoad(1);
      load.add({ indices: new Tensor('i32', [0], [1, 1]), weights: score }, score);
      expect(load.statistics().scoreEntropy).toBeCloseTo(0, 12);
      expect(RouterLoad.fromJSON(JSON.parse(JSON.stringify(load))).toJSON()).toEqual(load.toJSON());
    }
  });
});

describe('switchAndMixture', () => {
  it('gives the same weights for logits that are all larger by a number', () => {
    const own = f32([1, 2, 2.5, 0], [1, 4]);
    const far = f32([4097, 4098, 4098.5, 4096], [1, 4]);
    const options = { topK: 2, groups: 2 };
    const [a, b] = [own, far].map((one) => switchAndMixture(undefined, one, options));
    expect(b?.indices.toArray()).toEqual(a?.indices.toArray());
    expect(b?.weights.toArray()).toEqual(a?.weights.toArray());
  });
});
