// moeForward against its experts one by one, bit for bit.
import { describe, expect, it } from 'vitest';
import {
  add,
  type Compute,
  type Format,
  type Isa,
  type MoEExpert,
  MoEExperts,
  machine,
  matmul,
  moeForward,
  mul,
  type QuantizedTensor,
  swiglu,
  Tensor,
} from '../../lib/index.js';
import { formatNames, quantized } from '../quantize/cases.js';
import { firstDifference, gaussian } from '../reference/random.js';
import { expertsOf, f32, lists, routesOf } from './cases.js';

const levels = machine().isas;

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

  it('gives the bits of its experts one by one in 1000 random routings', () => {
    const sizes = { tokens: 6, hidden: 32, width: 32, count: 7, topK: 3, seed: 12 };
    const formats: Format[] = ['q8_0', 'q4_0', 'u2_g32', 'f32'];
    const mixed = new MoEExperts(expertsOf(sizes, (e) => formats[e % 4] as Format));
    const tokens = f32(gaussian(6 * 32, 3), [6, 32]);
    const run = { compute: 'i8', algorithm: 'dequant' } as const;
    // What each expert makes of each token.
    const parts = Array.from({ length: 7 }, (_, e) =>
      moeForward(
        tokens,
        {
          indices: new Tensor('i32', new Int32Array(6).fill(e), [6, 1]),
          weights: f32(new Float32Array(6).fill(1), [6, 1]),
        },
        mixed,
        run,
      ).data.slice(),
    );
    for (let seed = 0; seed < 1000; seed++) {
      const some = routesOf({ ...sizes, topK: 1 + (seed % 8), seed });
      const expected = new Float32Array(6 * 32);
      lists(some).forEach((of, t) => {
        for (const [e, w] of of.sort(([a], [b]) => a - b)) {
          for (let i = 32 * t; i < 32 * t + 32; i++) {
            const value = Math.fround((parts[e] as Float32Array)[i] as number);
            expected[i] = (expected[i] as number) + Math.fround(w * value);
          }
        }
      });
      const y = moeForward(tokens, some, mixed, run);
      if (firstDifference(y.data, expected) >= 0) expect(y.toArray()).toEqual([...expected]);
    }
    expect(parts).toHaveLength(7);
  });

  it('takes every format, in one mixture', () => {
    const [hidden, width] = [256, 256];
    // A ninth of the formats, others for another seed of the run.
    const names = formatNames.filter(
      (_, i) => (i + Number(process.env.BITLOOM_SEED ?? 0)) % 9 === 0,
    );
    const matrix = (format: Format, rows: number, cols: number, seed: number) =>
      quantized(format, gaussian(rows * cols, seed, 1 / 16), [rows, cols]);
    const list = names.map((format, e) => ({
      gate: matrix(format, width, hidden, 3 * e + 1),
      up: matrix(format, width, hidden, 3 * e + 2),
      down: matrix(format, hidden, width, 3 * e + 3),
    }));
    const tokens = 20;
    const x = f32(gaussian(tokens * hidden, 5), [tokens, hidden]);
    // Two or three experts of a token, one after the other, so that each has some.
    const topK = Math.ceil(names.length / 10);
    const indices = Int32Array.from({ length: tokens * topK }, (_, i) => i % names.length);
    const routes = {
      indices: new Tensor('i32', indices, [tokens, topK]),
      weights: f32(gaussian(tokens * topK, 6), [tokens, topK]),
    };
    expect(new Set(indices).size).toBe(names.length);
    const isa = levels.at(-1) as Isa;
    for (const compute of ['f32', 'i8', 'bf16'] as const) {
      const y = moeForward(x, routes, new MoEExperts(list), { compute, isa });
      expect(firstDifference(y.data, loop(x, routes, list, { compute, isa }).data)).toBe(-1);
    }
  });
});
