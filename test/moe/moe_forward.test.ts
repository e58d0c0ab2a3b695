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
  packWeights,
  type QuantizedTensor,
  quantize,
  swiglu,
  Tensor,
} from '../../lib/index.js';
import { type DenseExpert, mixture } from '../reference/moe_forward.js';
import { firstDifference, gaussian, randomSource } from '../reference/random.js';

const levels = machine().isas;
const activations: MoEActivation[] = ['silu', 'gelu', 'geluTanh', 'relu', 'relu2', 'swigluOai'];

interface Sizes {
  tokens: number;
  hidden: number;
  width: number;
  count: number;
  topK: number;
  seed: number;
}

function weights(rows: number, cols: number, format: Format, seed: number, packed: boolean) {
  const values = new Tensor('f32', gaussian(rows * cols, seed, 1 / Math.sqrt(cols)), [rows, cols]);
  const it = quantize(values, format);
  return packed ? packWeights(it) : it;
}

const f32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('f32', Float32Array.from(values), shape);

/** Experts with widths and formats of their own. */
function expertsOf(
  { hidden, width, count, seed }: Sizes,
  format: (e: number) => Format,
  { gated = true, biased = false, packed = true } = {},
): MoEExpert[] {
  return Array.from({ length: count }, (_, e) => {
    const own = width + 32 * (e % 2);
    const name = format(e);
    const at = seed + 10 * e;
    return {
      ...(gated ? { gate: weights(own, hidden, name, at, packed) } : {}),
      up: weights(own, hidden, name, at + 1, packed),
      down: weights(hidden, own, name, at + 2, packed),
      ...(biased && gated ? { gateBias: f32(gaussian(own, at + 3), [own]) } : {}),
      ...(biased ? { upBias: f32(gaussian(own, at + 4), [own]) } : {}),
      ...(biased ? { downBias: f32(gaussian(hidden, at + 5), [hidden]) } : {}),
    };
  });
}

/** Random routes; some go nowhere. */
function routesOf({ tokens, count, topK, seed }: Sizes, nowhere = 0.1) {
  const random = randomSource(seed + 99);
  const indices = Int32Array.from({ length: tokens * topK }, () =>
    random() < nowhere ? -1 : Math.floor(random() * count),
  );
  return {
    indices: new Tensor('i32', indices, [tokens, topK]),
    weights: f32(gaussian(tokens * topK, seed + 98), [tokens, topK]),
  };
}

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

describe('moeForward', () => {
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

export { moeForwardAsync };
