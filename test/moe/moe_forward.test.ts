import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  add,
  type Compute,
  dequantize,
  type Format,
  type Isa,
  type MoEActivation,
  type MoEExpert,
  MoEExperts,
  machine,
  matmul,
  moeForward,
  moeForwardAsync,
  mul,
  type QuantizedTensor,
  sequence,
  swiglu,
  Tensor,
} from '../../lib/index.js';
import { type DenseExpert, mixture } from '../reference/moe_forward.js';
import { epsilon, expectError, floatTypes, strided } from '../reference/op_checks.js';
import { firstDifference, gaussian } from '../reference/random.js';
import { expertsOf, f32, routesOf } from './cases.js';

const levels = machine().isas;
const activations: MoEActivation[] = ['silu', 'gelu', 'geluTanh', 'relu', 'relu2', 'swigluOai'];

const rowsOf = (w: QuantizedTensor): number[][] => {
  const values = dequantize(w).toArray();
  return Array.from({ length: w.rows }, (_, i) => values.slice(i * w.cols, (i + 1) * w.cols));
};

const dense = (expert: MoEExpert): DenseExpert => ({
  gate: expert.gate && rowsOf(expert.gate),
  up: rowsOf(expert.up),
  down: rowsOf(expert.down),
  gateBias: expert.gateBias?.toArray(),
  upBias: expert.upBias?.toArray(),
  downBias: expert.downBias?.toArray(),
});

const lists = ({ indices, weights: w }: ReturnType<typeof routesOf>) =>
  Array.from({ length: indices.shape[0] as number }, (_, t) => {
    const topK = indices.shape[1] as number;
    const of = Array.from({ length: topK }, (_, k): [number, number] => [
      indices.data[t * topK + k] as number,
      w.data[t * topK + k] as number,
    ]);
    return of.filter(([e]) => e >= 0);
  });

const tokensOf = (x: Tensor<'f32'>): number[][] => {
  const values = x.toArray();
  const hidden = x.shape[1] as number;
  return Array.from({ length: x.shape[0] as number }, (_, t) =>
    values.slice(t * hidden, (t + 1) * hidden),
  );
};

/** Largest difference, relative to the largest value that is expected. */
function difference(actual: ArrayLike<number>, expected: number[]): number {
  const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-30);
  return expected.reduce(
    (most, x, i) => Math.max(most, Math.abs((actual[i] as number) - x) / largest),
    0,
  );
}

const sizes = fc.record({
  tokens: fc.integer({ min: 0, max: 40 }),
  hidden: fc.constantFrom(32, 64, 96),
  width: fc.constantFrom(32, 64),
  count: fc.integer({ min: 1, max: 9 }),
  topK: fc.integer({ min: 1, max: 4 }),
  seed: fc.integer({ min: 1, max: 1e6 }),
});

describe('moeForward and the formula', () => {
  it.each(levels)('equals the float64 reference at level %s', (isa) => {
    fc.assert(
      fc.property(
        sizes,
        fc.constantFrom(...activations),
        fc.boolean(),
        fc.boolean(),
        fc.boolean(),
        (own, activation, gated, biased, packed) => {
          const isGated = gated || activation === 'swigluOai';
          const formats: Format[] = ['q8_0', 'f32', 'u4_g32', 'q4_0', 'nf4_g32', 'bf16', 't2_g32'];
          const list = expertsOf(own, (e) => formats[(e + own.seed) % 7] as Format, {
            gated: isGated,
            biased,
            packed,
          });
          const routes = routesOf(own);
          const x = f32(gaussian(own.tokens * own.hidden, own.seed + 7), [own.tokens, own.hidden]);
          const y = moeForward(x, routes, new MoEExperts(list), { activation, isa });
          const expected = mixture(list.map(dense), tokensOf(x), lists(routes), activation);
          expect(y.shape).toEqual([own.tokens, own.hidden]);
          expect(difference(y.data, expected.flat())).toBeLessThan(2e-5);
        },
      ),
      { numRuns: isa === 'scalar' ? 15 : 40 },
    );
  });
});

/** The same layer by operators of its own: each expert in turn over its tokens. */
function loop(
  x: Tensor<'f32'>,
  routes: ReturnType<typeof routesOf>,
  list: MoEExpert[],
  run: { compute: Compute; isa: Isa; algorithm?: 'dequant' | 'tile' | 'lut' },
): Tensor<'f32'> {
  const hidden = x.shape[1] as number;
  const y = Tensor.zeros('f32', x.shape);
  list.forEach((expert, e) => {
    const of = lists(routes).flatMap((own, t) =>
      own.filter(([number]) => number === e).map(([, w]) => [t, w] as [number, number]),
    );
    if (of.length === 0) return;
    const rows = f32(
      of.flatMap(([t]) => x.slice(t, t + 1).toArray()),
      [of.length, hidden],
    );
    const between = swiglu(
      matmul(rows, expert.gate as QuantizedTensor, run),
      matmul(rows, expert.up, run),
      { isa: run.isa },
    );
    const products = matmul(between, expert.down, run);
    of.forEach(([t, w], i) => {
      const sum = y.slice(t, t + 1);
      add(sum, mul(products.slice(i, i + 1), f32([w], []), { isa: run.isa }), {
        out: sum,
        isa: run.isa,
      });
    });
  });
  return y;
}

describe('moeForward and its experts one by one', () => {
  it.each(levels.flatMap((isa) => (['dequant', 'tile', 'lut'] as const).map((a) => ({ isa, a }))))(
    'give the same bits: %o',
    ({ isa, a: algorithm }) => {
      const own = { tokens: 70, hidden: 96, width: 64, count: 5, topK: 2, seed: 3 };
      const formats: Format[] =
        algorithm === 'lut' ? ['u2_g32', 't2_g32', 'u1_g32'] : ['q8_0', 'u4z_g32', 'q5_1'];
      for (const packed of [true, false]) {
        const list = expertsOf(own, (e) => formats[e % 3] as Format, { packed });
        const routes = routesOf(own);
        const x = f32(gaussian(own.tokens * own.hidden, 5), [own.tokens, own.hidden]);
        const run = { compute: 'i8' as const, isa, algorithm };
        const y = moeForward(x, routes, new MoEExperts(list), run);
        expect(firstDifference(y.data, loop(x, routes, list, run).data)).toBe(-1);
        // Threads, and how many tokens pass at a time, change no bit.
        for (const options of [{ threads: 1 }, { threads: 3 }, { threads: 7 }, { maxRows: 5 }]) {
          const other = moeForward(x, routes, new MoEExperts(list), { ...run, ...options });
          expect(firstDifference(y.data, other.data)).toBe(-1);
        }
      }
    },
  );
});

describe('moeForward', () => {
  const own = { tokens: 6, hidden: 64, width: 32, count: 4, topK: 2, seed: 8 };
  const q8 = () => 'q8_0' as Format;
  const list = expertsOf(own, q8, { biased: true });
  const experts = new MoEExperts(list);
  const x = f32(gaussian(own.tokens * own.hidden, 21), [own.tokens, own.hidden]);
  const routes = routesOf(own);
  const plain = moeForward(x, routes, experts);

  it('takes every expert for every token, all tokens to one, none anywhere', () => {
    const reference = list.map(dense);
    const all = {
      indices: new Tensor(
        'i32',
        Int32Array.from({ length: 24 }, (_, i) => 3 - (i % 4)),
        [6, 4],
      ),
      weights: f32(gaussian(24, 4), [6, 4]),
    };
    const one = {
      indices: new Tensor('i32', new Int32Array(6).fill(2), [6, 1]),
      weights: f32(gaussian(6, 4), [6, 1]),
    };
    for (const some of [all, one]) {
      const y = moeForward(x, some, experts);
      const expected = mixture(reference, tokensOf(x), lists(some));
      expect(difference(y.data, expected.flat())).toBeLessThan(2e-5);
    }
    const nowhere = {
      indices: new Tensor('i32', new Int32Array(12).fill(-1), [6, 2]),
      weights: f32(gaussian(12, 4), [6, 2]),
    };
    expect(moeForward(x, nowhere, experts).data.every((value) => value === 0)).toBe(true);
    const none = { indices: Tensor.zeros('i32', [6, 0]), weights: Tensor.zeros('f32', [6, 0]) };
    expect(moeForward(x, none, experts).data.every((value) => value === 0)).toBe(true);
  });

  it('adds a residual in place, and shared experts with weights', () => {
    const y = f32(gaussian(own.tokens * own.hidden, 31), x.shape as number[]);
    const before = y.toArray();
    const sharedWeights = f32(gaussian(own.tokens, 32), [own.tokens, 1]);
    const three = {
      ...routes,
      indices: new Tensor(
        'i32',
        routes.indices.data.map((e) => Math.min(e, 2)),
        [6, 2],
      ),
    };
    moeForward(x, three, experts, { numShared: 1, sharedWeights, residual: y, out: y });
    const withShared = lists(three).map((of, t): [number, number][] => [
      ...of,
      [3, sharedWeights.data[t] as number],
    ]);
    const expected = mixture(list.map(dense), tokensOf(x), withShared).flat();
    expect(
      difference(
        y.data,
        expected.map((value, i) => value + (before[i] as number)),
      ),
    ).toBeLessThan(2e-5);
    const unweighted = moeForward(x, three, experts, { numShared: 1 });
    const ones = f32(new Float32Array(own.tokens).fill(1), [own.tokens, 1]);
    const weighted = moeForward(x, three, experts, { numShared: 1, sharedWeights: ones });
    expect(firstDifference(unweighted.data, weighted.data)).toBe(-1);
  });

  it('takes f16, bf16 and strided rows', () => {
    for (const dtype of floatTypes) {
      const values = strided(dtype, gaussian(own.tokens * own.hidden, 21), x.shape, [3, 2]);
      const out = strided(dtype, new Float32Array(x.size), x.shape, [5, 1]);
      moeForward(values, routes, experts, { out });
      const rounded = f32(values.toArray(), x.shape as number[]);
      const expected = moeForward(rounded, routes, experts).toArray();
      expect(difference(out.toArray(), expected)).toBeLessThanOrEqual(epsilon[dtype]);
    }
  });

  it('gives NaN where a token has it, and nowhere else', () => {
    const values = x.toArray();
    values[70] = Number.NaN;
    for (const compute of ['f32', 'i8', 'bf16'] as Compute[]) {
      const some = routesOf(own, 0);
      const y = moeForward(f32(values, x.shape as number[]), some, experts, { compute });
      const bad = y.toArray().flatMap((value, i) => (Number.isNaN(value) ? [i] : []));
      expect(bad).toEqual(Array.from({ length: 64 }, (_, i) => 64 + i));
    }
  });

  it('runs off the event loop, with memory that stays when buffers are transferred', async () => {
    const moved = expertsOf(own, q8, { biased: true });
    const held = new MoEExperts(moved);
    const going = moeForwardAsync(x, routes, held);
    held.dispose({ weights: true });
    expect(firstDifference((await going).data, plain.data)).toBe(-1);
    expect(held.disposed).toBe(true);
    expectError(
      () => moeForward(x, routes, held),
      'BL_DETACHED',
      'MoEExperts: used after dispose()',
    );
    const inSequence = await sequence(() => moeForward(mul(x, f32([1], [])), routes, experts));
    expect(firstDifference(inSequence.data, plain.data)).toBe(-1);
    await expect(moeForwardAsync(x, routes, experts, { maxRows: -1 })).rejects.toThrow(
      'maxRows is -1',
    );
  });
});
