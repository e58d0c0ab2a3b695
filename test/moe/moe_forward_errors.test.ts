import { describe, expect, it } from 'vitest';
import {
  type Compute,
  type MoEActivation,
  type MoEExpert,
  MoEExperts,
  type MoEForwardOptions,
  moeForward,
  Tensor,
} from '../../lib/index.js';
import { expectError } from '../reference/op_checks.js';
import { gaussian } from '../reference/random.js';
import { expertsOf, f32, routesOf, weights } from './cases.js';

describe('moeForward', () => {
  const own = { tokens: 6, hidden: 64, width: 32, count: 4, topK: 2, seed: 8 };
  const experts = new MoEExperts(expertsOf(own, () => 'q8_0', { biased: true }));
  const x = f32(gaussian(own.tokens * own.hidden, 21), [own.tokens, own.hidden]);
  const routes = routesOf(own);

  it('refuses what does not fit, before it writes', () => {
    const out = f32(new Float32Array(x.size).fill(7), x.shape as number[]);
    const bad = (index: number) => {
      const indices = routes.indices.data.slice();
      indices[5] = index;
      return { ...routes, indices: new Tensor('i32', indices, [6, 2]) };
    };
    const call = (
      change: Partial<MoEForwardOptions> = {},
      at: typeof routes = routes,
      tokens: Tensor<'f32'> = x,
    ) => moeForward(tokens, at, experts, { out, ...change });
    const cases: [() => unknown, string, string][] = [
      [
        () => call({}, bad(4)),
        'BL_OUT_OF_RANGE',
        'moeForward: indices[2, 1] is 4, expected -1 to 3',
      ],
      [
        () => call({}, bad(-2)),
        'BL_OUT_OF_RANGE',
        'moeForward: indices[2, 1] is -2, expected -1 to 3',
      ],
      [
        () => call({ numShared: 1 }, bad(3)),
        'BL_OUT_OF_RANGE',
        'moeForward: indices[1, 1] is 3, expected -1 to 2',
      ],
      [
        () => call({ numShared: 5 }),
        'BL_OUT_OF_RANGE',
        'moeForward: numShared is 5, expected a whole number from 0 to 4',
      ],
      [
        () => call({ activation: 'tanh' as MoEActivation }),
        'BL_INVALID_ARGUMENT',
        'moeForward: activation is "tanh", expected silu, gelu, geluTanh, relu, relu2, swigluOai',
      ],
      [
        () => call({ limit: '7' as never }),
        'BL_INVALID_ARGUMENT',
        'moeForward: limit is "7", expected a number',
      ],
      [
        () => call({ limit: Number.NaN }),
        'BL_INVALID_ARGUMENT',
        'moeForward: limit is nan, expected a finite number of at least 0',
      ],
      [
        () => call({ compute: 'i4' as Compute }),
        'BL_INVALID_ARGUMENT',
        'moeForward: compute is "i4", expected f32, i8, bf16, i1 or e4m3',
      ],
      [
        () => call({ compute: 'e4m3' }),
        'BL_UNSUPPORTED',
        'moeForward: compute is "e4m3", expected f32, i8, bf16 or i1',
      ],
      [
        () => call({ extra: 1 } as object),
        'BL_INVALID_ARGUMENT',
        'moeForward: option "extra" is not known, expected one of activation, limit, numShared, sharedWeights, residual, compute, algorithm, maxRows, out, workspace, isa, threads',
      ],
      [
        () => call({ out: x }),
        'BL_INVALID_ARGUMENT',
        'moeForward: out overlaps x, expected separate memory',
      ],
      [
        () => call({}, { ...routes, weights: f32(new Float32Array(6), [6, 1]) }),
        'BL_INVALID_SHAPE',
        'moeForward: weights.shape[1] is 1, expected 2 (= indices.shape[1])',
      ],
      [
        () => call({}, routes, f32([], [0, 64])),
        'BL_INVALID_SHAPE',
        'moeForward: indices.shape[0] is 6, expected 0 (= x.shape[0])',
      ],
      [
        () =>
          call({ out: Tensor.zeros('f32', [6, 32]) }, routes, f32(new Float32Array(192), [6, 32])),
        'BL_INVALID_SHAPE',
        'moeForward: experts[0].up.cols is 64, expected 32 (= hidden)',
      ],
      [
        () => call({ sharedWeights: f32(new Float32Array(6), [6, 1]) }),
        'BL_INVALID_SHAPE',
        'moeForward: sharedWeights.shape[1] is 1, expected 0 (= numShared)',
      ],
      [
        () => call({ algorithm: 'lut', compute: 'f32' }),
        'BL_UNSUPPORTED',
        'moeForward: algorithm is lut, which has no kernel for compute f32 of experts[0].up, of format q8_0',
      ],
      [
        () => moeForward(x, routes, [] as unknown as MoEExperts),
        'BL_INVALID_ARGUMENT',
        'moeForward: experts is an Array, expected MoEExperts',
      ],
    ];
    for (const [body, code, message] of cases) expectError(body, code, message);
    expect(out.data.every((value) => value === 7)).toBe(true);
  });
});

describe('MoEExperts', () => {
  const own = { tokens: 1, hidden: 64, width: 32, count: 2, topK: 1, seed: 5 };
  const [first] = expertsOf(own, () => 'q4_0') as [MoEExpert];
  const other = weights(32, 64, 'q8_0', 1, true);

  it('refuses experts that do not fit', () => {
    const cases: [object, string, string][] = [
      [
        { ...first, up: undefined },
        'BL_INVALID_ARGUMENT',
        'MoEExperts: experts[1].up is undefined, expected a QuantizedTensor',
      ],
      [
        { ...first, gate: other },
        'BL_INVALID_FORMAT',
        'MoEExperts: experts[1].gate.format is q8_0, expected q4_0 (= up.format)',
      ],
      [
        { ...first, up: weights(32, 32, 'q4_0', 1, true), gate: undefined },
        'BL_INVALID_SHAPE',
        'MoEExperts: experts[1].up.cols is 32, expected 64 (= hidden)',
      ],
      [
        { ...first, down: weights(64, 64, 'q4_0', 1, true) },
        'BL_INVALID_SHAPE',
        'MoEExperts: experts[1].down.cols is 64, expected 32 (= up.rows)',
      ],
      [
        { ...first, upBias: f32([1], [1]) },
        'BL_INVALID_SHAPE',
        'MoEExperts: experts[1].upBias.shape[0] is 1, expected 32 (= up.rows)',
      ],
      [
        { ...first, gate: undefined, gateBias: f32(new Float32Array(32), [32]) },
        'BL_INVALID_ARGUMENT',
        'MoEExperts: experts[1].gateBias is given, expected a gate with it',
      ],
    ];
    for (const [expert, code, message] of cases) {
      expectError(() => new MoEExperts([first, expert as MoEExpert]), code, message);
    }
    expectError(
      () => new MoEExperts(undefined as never),
      'BL_INVALID_ARGUMENT',
      'MoEExperts: experts is undefined, expected an array',
    );
    const experts = new MoEExperts([first]);
    expectError(
      () => experts.with(new Map([['length', first]]) as never),
      'BL_OUT_OF_RANGE',
      'MoEExperts: with("length"), expected 0 to 0',
    );
    expectError(
      () => experts.with(undefined as never),
      'BL_INVALID_ARGUMENT',
      'MoEExperts: with(undefined), expected a Map',
    );
  });
});
