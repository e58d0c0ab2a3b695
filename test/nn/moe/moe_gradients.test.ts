import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  machine,
  moeRoute,
  RouterLoad,
  routerZLoss,
  sequence,
  Tensor,
} from '../../../lib/index.js';
import {
  type MoELayerWeights,
  type MoETrainingOptions,
  moeLayerBackward,
  moeLayerForward,
  routerLosses,
} from '../../../lib/nn/index.js';
import { differences, type LayerCase, lossOf, moeLayer } from '../../reference/moe_layer.js';
import { expectError, isas } from '../../reference/op_checks.js';
import { firstDifference, gaussian } from '../../reference/random.js';

const f32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('f32', Float32Array.from(values), shape);

const names = ['x', 'router', 'gate', 'up', 'down'] as const;

type Own = LayerCase & { gated: boolean; seed: number };

function make(own: Own) {
  const { tokens, hidden, ffn, experts, seed, gated } = own;
  const draw = (count: number, i: number, scale = 1) => gaussian(count, seed + i, scale);
  const wide = experts * ffn * hidden;
  const weights: MoELayerWeights = {
    router: f32(draw(experts * hidden, 1), [experts, hidden]),
    ...(gated ? { gate: f32(draw(wide, 2, 0.5), [experts, ffn, hidden]) } : {}),
    up: f32(draw(wide, 3, 0.5), [experts, ffn, hidden]),
    down: f32(draw(wide, 4, 0.5), [experts, hidden, ffn]),
  };
  const x = f32(draw(tokens * hidden, 5), [tokens, hidden]);
  const g = f32(draw(tokens * hidden, 6), [tokens, hidden]);
  const values = {
    x: Array.from(x.data),
    router: Array.from(weights.router.data),
    ...(weights.gate === undefined ? {} : { gate: Array.from(weights.gate.toArray()) }),
    up: Array.from(weights.up.toArray()),
    down: Array.from(weights.down.toArray()),
  };
  return { x, g, weights, values };
}

/** Largest error relative to the largest number. */
function relative(actual: ArrayLike<number>, expected: readonly number[]): number {
  expect(actual.length).toBe(expected.length);
  const largest = Math.max(1e-3, ...expected.map(Math.abs));
  return Math.max(0, ...expected.map((y, i) => Math.abs((actual[i] as number) - y) / largest));
}

const layer = fc.record({
  tokens: fc.constantFrom(1, 2, 5),
  hidden: fc.constantFrom(1, 3, 6),
  ffn: fc.constantFrom(1, 4, 5),
  experts: fc.integer({ min: 1, max: 4 }),
  top: fc.double({ min: 0, max: 1, noNaN: true }),
  scoring: fc.constantFrom<LayerCase['scoring']>('softmax', 'softmaxChosen', 'sigmoid'),
  normalize: fc.boolean(),
  scale: fc.constantFrom(1, 2.5),
  activation: fc.constantFrom<LayerCase['activation']>('silu', 'gelu', 'relu2'),
  balanceWeight: fc.constantFrom(0, 0.5),
  zWeight: fc.constantFrom(0, 0.1),
  gated: fc.boolean(),
  blockSize: fc.constantFrom(undefined, 16),
  seed: fc.integer({ min: 1, max: 1e6 }),
});

function optionsOf(own: LayerCase & { blockSize?: number | undefined }, topK: number) {
  const { scoring, normalize, scale, activation, balanceWeight, zWeight, blockSize } = own;
  const all = { topK, scoring, normalize, scale, activation, balanceWeight, zWeight };
  return { ...all, ...(blockSize === undefined ? {} : { blockSize }) } satisfies MoETrainingOptions;
}

describe('moeLayer', () => {
  it('gives the results and gradients that finite differences in double give', () => {
    fc.assert(
      fc.property(layer, (own) => {
        const topK = 1 + Math.floor(own.top * (own.experts - 1));
        const { x, g, weights, values } = make(own);
        const { out, state } = moeLayerForward(x, weights, optionsOf(own, topK));
        const chosen = Array.from({ length: own.tokens }, (_, t) =>
          Array.from(state.routes.indices.data.slice(t * topK, (t + 1) * topK)),
        );
        const expected = moeLayer(own, values, chosen);
        expect(relative(out.data, expected.out)).toBeLessThan(2e-5);
        const gradients = moeLayerBackward(state, g);
        expect(gradients.balanceLoss).toBeCloseTo(expected.balance, 5);
        expect(gradients.zLoss).toBeCloseTo(expected.z, 3);
        for (const name of names) {
          const gradient = gradients[name];
          expect(gradient === undefined).toBe(values[name] === undefined);
          if (gradient === undefined) continue;
          const numbers = differences(own, values, chosen, Array.from(g.data), name);
          expect(relative(gradient.data, numbers)).toBeLessThan(1e-4);
        }
      }),
      { numRuns: 40 },
    );
  });

  it('agrees with central differences of its own forward', () => {
    const own: Own = {
      ...{ tokens: 9, hidden: 16, ffn: 24, experts: 4, seed: 11, gated: true, scale: 1 },
      ...{ scoring: 'softmax', normalize: true, activation: 'silu', balanceWeight: 0, zWeight: 0 },
    };
    const { x, g, weights } = make(own);
    const options: MoETrainingOptions = { topK: 2, normalize: true };
    const gradients = moeLayerBackward(moeLayerForward(x, weights, options).state, g);
    const loss = () => {
      const { out } = moeLayerForward(x, weights, options);
      return out.data.reduce((sum, value, i) => sum + value * (g.data[i] as number), 0);
    };
    for (const name of names) {
      const values = (name === 'x' ? x : weights[name])?.data as Float32Array;
      const expected = gradients[name]?.data as Float32Array;
      const scale = Math.max(...expected.map(Math.abs));
      for (let i = 0; i < values.length; i += Math.ceil(values.length / 13)) {
        const before = values[i] as number;
        const step = 2 ** -9;
        values[i] = before + step;
        const above = loss();
        values[i] = before - step;
        const below = loss();
        values[i] = before;
        const slope = (above - below) / (2 * step);
        expect(Math.abs(slope - (expected[i] as number)) / scale).toBeLessThan(1e-2);
      }
    }
  });

  it('has the same bits as a product per expert and with blocks, at every level, on any threads', () => {
    const own: Own = {
      ...{ tokens: 70, hidden: 48, ffn: 40, experts: 5, seed: 3, gated: true, scale: 1 },
      ...{ scoring: 'softmaxChosen', normalize: false, activation: 'silu' },
      ...{ balanceWeight: 0.01, zWeight: 0.001 },
    };
    const { x, g, weights } = make(own);
    const run = (extra: object) => {
      const { out, state } = moeLayerForward(x, weights, { ...optionsOf(own, 2), ...extra });
      return { out, ...moeLayerBackward(state, g) };
    };
    const all = ['out', ...names] as const;
    for (const isa of isas) {
      const expected = run({ isa, threads: 1 });
      const others = [16, 32, 64, 128].map((blockSize) => run({ isa, blockSize }));
      for (const actual of [...others, run({ isa, threads: 3 })]) {
        for (const name of all) {
          const [a, b] = [actual[name] as Tensor<'f32'>, expected[name] as Tensor<'f32'>];
          expect(firstDifference(a.bytes, b.bytes)).toBe(-1);
        }
      }
    }
  });

  it('computes in bf16, of weights of bf16, within its rounding', () => {
    const own: Own = {
      ...{ tokens: 40, hidden: 64, ffn: 64, experts: 4, seed: 5, gated: true, scale: 1 },
      ...{ scoring: 'softmax', normalize: true, activation: 'silu' },
      ...{ balanceWeight: 0, zWeight: 0 },
    };
    const { x, g, weights } = make(own);
    const half = (t: Tensor) => new Tensor('bf16', Array.from(t.toArray()), t.shape);
    const halves = {
      router: weights.router,
      gate: half(weights.gate as Tensor),
      up: half(weights.up),
      down: half(weights.down),
    };
    const exact = moeLayerForward(x, weights, optionsOf(own, 2));
    const expected = moeLayerBackward(exact.state, g);
    for (const isa of machine().isas) {
      const { out, state } = moeLayerForward(x, halves, {
        ...optionsOf(own, 2),
        compute: 'bf16',
        isa,
      });
      expect(firstDifference(state.routes.indices.bytes, exact.state.routes.indices.bytes)).toBe(
        -1,
      );
      expect(relative(out.data, Array.from(exact.out.data))).toBeLessThan(2e-2);
      const gradients = moeLayerBackward(state, g);
      for (const name of names) {
        const [a, b] = [gradients[name] as Tensor<'f32'>, expected[name] as Tensor<'f32'>];
        expect(relative(a.data, Array.from(b.data))).toBeLessThan(3e-2);
      }
    }
  });

  it('takes no tokens, all tokens to one expert, all experts', () => {
    const own: Own = {
      ...{ tokens: 17, hidden: 8, ffn: 5, experts: 3, seed: 7, gated: false, scale: 1 },
      ...{ scoring: 'softmax', normalize: false, activation: 'relu2' },
      ...{ balanceWeight: 1, zWeight: 0 },
    };
    const { x, g, weights, values } = make(own);
    const none = moeLayerForward(f32([], [0, 8]), weights, { topK: 2 });
    const empty = moeLayerBackward(none.state, f32([], [0, 8]));
    expect(empty.up.data.every((value) => value === 0)).toBe(true);
    expect(empty.router.data.every((value) => value === 0)).toBe(true);
    // A router that sees a constant: every token goes to expert 1.
    for (let t = 0; t < 17; t++) x.data[t * 8] = 1;
    weights.router.data.fill(0);
    weights.router.data[8] = 50;
    for (const topK of [1, 3]) {
      const { out, state } = moeLayerForward(x, weights, optionsOf(own, topK));
      expect(state.routes.indices.data[0]).toBe(1);
      const chosen = Array.from({ length: 17 }, (_, t) =>
        Array.from(state.routes.indices.data.slice(t * topK, (t + 1) * topK)),
      );
      const now = { ...values, x: Array.from(x.data), router: Array.from(weights.router.data) };
      expect(relative(out.data, moeLayer(own, now, chosen).out)).toBeLessThan(2e-5);
      expect(lossOf(own, now, chosen, Array.from(g.data))).not.toBeNaN();
      const { up } = moeLayerBackward(state, g);
      if (topK === 1) expect(up.data.slice(0, 40).every((value) => value === 0)).toBe(true);
    }
  });

  it('names what is wrong', () => {
    const own: Own = {
      ...{ tokens: 2, hidden: 4, ffn: 3, experts: 2, seed: 7, gated: true, scale: 1 },
      ...{ scoring: 'softmax', normalize: false, activation: 'silu' },
      ...{ balanceWeight: 0, zWeight: 0 },
    };
    const { x, g, weights } = make(own);
    const byColumns = new Tensor('f32', new Float32Array(8), [2, 4], { strides: [1, 2] });
    const cases: [() => unknown, string, string][] = [
      [
        () => moeLayerForward(x, { ...weights, down: weights.up }, { topK: 1 }),
        'INVALID_SHAPE',
        'moeLayerForward: weights.down.shape is [2,3,4], expected [2,4,3]',
      ],
      [
        () => moeLayerForward(x, weights, { topK: 3 }),
        'OUT_OF_RANGE',
        'moeRoute: topK is 3, expected 1 to 2 (logits.shape[1])',
      ],
      [
        () => moeLayerForward(x, weights, { topK: 1, activation: 'relu' as 'silu' }),
        'INVALID_ARGUMENT',
        'moeLayerForward: activation is "relu", expected silu, gelu, relu2',
      ],
      [
        () => moeLayerForward(f32(x.data.fill(Number.NaN), [2, 4]), weights, { topK: 1 }),
        'NON_FINITE',
        'moeRoute: logits[0, 0] is NaN or infinity, expected a number',
      ],
      [
        () =>
          moeLayerBackward(
            moeLayerForward(g, weights, { topK: 1 }).state,
            f32(new Float32Array(4), [1, 4]),
          ),
        'INVALID_SHAPE',
        'moeLayerBackward: gradient.shape is [1,4], expected [2,4] (= x.shape)',
      ],
      [
        () => moeLayerForward(g, { ...weights, router: byColumns }, { topK: 1 }),
        'INVALID_SHAPE',
        'moeLayerForward: weights.router.strides is [1,2], expected those of contiguous rows',
      ],
      [
        () =>
          moeLayerForward(
            g,
            { ...weights, router: new Tensor('f16', new Uint16Array(8), [2, 4]) as never },
            { topK: 1 },
          ),
        'INVALID_DTYPE',
        'moeLayerForward: weights.router.dtype is f16, expected f32',
      ],
      [
        () => moeLayerForward(g, weights, { topK: 1, zWeight: Number.NaN }),
        'INVALID_ARGUMENT',
        'moeLayerForward: zWeight is NaN, expected a finite number',
      ],
      [
        () => moeLayerForward(g, weights, undefined as never),
        'INVALID_ARGUMENT',
        'moeLayerForward: options is undefined, expected an object',
      ],
      [
        () => moeLayerBackward(moeLayerForward(g, weights, { topK: 1 }).state, byColumns),
        'INVALID_SHAPE',
        'moeLayerBackward: gradient.strides is [1,2], expected those of contiguous rows',
      ],
      [
        () =>
          moeLayerBackward(
            moeLayerForward(g, weights, { topK: 1 }).state,
            new Tensor('f16', new Uint16Array(8), [2, 4]) as never,
          ),
        'INVALID_DTYPE',
        'moeLayerBackward: gradient.dtype is f16, expected f32',
      ],
    ];
    for (const [body, code, message] of cases) expectError(body, `BL_${code}`, message);
  });

  it('is not recorded: it reads values', async () => {
    const weights = {
      router: f32(new Float32Array(8), [2, 4]),
      up: f32(new Float32Array(24), [2, 3, 4]),
      down: f32(new Float32Array(24), [2, 4, 3]),
    };
    const body = () => moeLayerForward(f32(new Float32Array(8), [2, 4]), weights, { topK: 1 });
    await expect(sequence(body)).rejects.toThrow('moeLayerForward: called within a sequence');
  });
});

describe('routerLosses', () => {
  const logits = f32(gaussian(12, 3), [4, 3]);
  const scores = Tensor.zeros('f32', [4, 3]);
  const routes = moeRoute(logits, { topK: 2, scores });

  it('is that of RouterLoad and routerZLoss, where routes were dropped too', () => {
    const indices = routes.indices.data;
    indices[0] = -1;
    indices[5] = -1;
    const load = new RouterLoad(3);
    load.add(routes, scores);
    const { balance, z, gradient } = routerLosses(logits, routes.indices, 1, 0);
    expect(balance).toBeCloseTo(load.balancingLoss(), 6);
    expect(z).toBeCloseTo(routerZLoss(logits), 12);
    for (let i = 0; i < 12; i++) {
      const at = (change: number) =>
        routerLosses(
          f32(
            logits.data.map((value, j) => (i === j ? value + change : value)),
            [4, 3],
          ),
          routes.indices,
          1,
          0,
        ).balance;
      expect(gradient[i]).toBeCloseTo((at(2 ** -8) - at(-(2 ** -8))) / 2 ** -7, 4);
    }
  });

  it('takes f of a global batch, in the layer too', () => {
    // Two machines, whose loads are merged: the loss of both is the mean of theirs with f of all.
    const [a, b] = [1, 2].map((seed) => f32(gaussian(12, seed), [4, 3])) as [
      Tensor<'f32'>,
      Tensor<'f32'>,
    ];
    const load = new RouterLoad(3);
    const own = [a, b].map((one) => {
      const p = Tensor.zeros('f32', [4, 3]);
      const routed = moeRoute(one, { topK: 1, scores: p });
      load.add(routed, p);
      return routed.indices;
    });
    const { counts } = load.statistics();
    const losses = [a, b].map((one, i) => routerLosses(one, own[i] as Tensor<'i32'>, 1, 0, counts));
    const mean = losses.reduce((sum, { balance }) => sum + balance / 2, 0);
    expect(mean).toBeCloseTo(load.balancingLoss(), 6);
    const weights = {
      router: f32([1, 0, 0, 0, 1, 0, 0, 0, 1], [3, 3]),
      up: f32(new Float32Array(9), [3, 1, 3]),
      down: f32(new Float32Array(9), [3, 3, 1]),
    };
    const layer = (balanceCounts?: number[]) => {
      const options = { topK: 1, balanceWeight: 1, ...(balanceCounts && { balanceCounts }) };
      const { state } = moeLayerForward(a, weights, options);
      return moeLayerBackward(state, Tensor.zeros('f32', [4, 3]));
    };
    // With a router of ones, x are the logits, and experts of zeros add nothing to their gradient.
    expect(layer(counts).balanceLoss).toBeCloseTo(losses[0]?.balance as number, 12);
    expect(Array.from(layer(counts).x.data)).toEqual(
      Array.from(losses[0]?.gradient as Float64Array, Math.fround),
    );
    expect(layer().balanceLoss).not.toBeCloseTo(layer([0, 0, 9]).balanceLoss, 3);
    expectError(
      () => layer([1, 2]),
      'BL_OUT_OF_RANGE',
      'routerLosses: counts is [1,2], expected 3 numbers of at least 0',
    );
  });

  it('names what is wrong', () => {
    const bad = new Tensor('i32', [0, 3, 0, 1, 2, 1, 0, 1], [4, 2]);
    expectError(
      () => routerLosses(logits, bad, 1, 1),
      'BL_OUT_OF_RANGE',
      'routerLosses: indices[0, 1] is 3, expected -1 to 2',
    );
    expectError(
      () => routerLosses(logits, new Tensor('i32', [0], [1, 1]), 1, 1),
      'BL_INVALID_SHAPE',
      'routerLosses: indices.shape[0] is 1, expected 4 (= logits.shape[0])',
    );
  });
});
