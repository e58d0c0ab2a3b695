// moeForward with experts of low rank, beside others of full rank.
import { describe, expect, it } from 'vitest';
import {
  type Algorithm,
  add,
  dequantize,
  type Format,
  type MoEExpert,
  MoEExperts,
  machine,
  matmul,
  moeForward,
  mul,
  type QuantizedTensor,
  quantize,
  swiglu,
  Tensor,
} from '../../lib/index.js';
import { type DenseExpert, mixture } from '../reference/moe_forward.js';
import { expectError } from '../reference/op_checks.js';
import { firstDifference, gaussian } from '../reference/random.js';
import { f32, lists, routesOf, type Sizes, weights } from './cases.js';

const levels = machine().isas;

/** In turn: both ends, reduce alone, expand alone, neither; ranks that differ. */
function lowRankExperts({ hidden, width, count, seed }: Sizes, formats: Format[]): MoEExpert[] {
  return Array.from({ length: count }, (_, e) => {
    const rank = 32 + 32 * (e % 3);
    const [reduces, expands] = [e % 4 < 2, e % 2 === 0];
    const [inner, outer] = [reduces ? rank : hidden, expands ? 96 - (rank % 64) : hidden];
    const matrix = (rows: number, cols: number, at: number) =>
      weights(rows, cols, formats[(e + at) % formats.length] as Format, seed + 10 * e + at, true);
    const up = matrix(width, inner, 0);
    return {
      gate: weights(width, inner, up.format, seed + 10 * e + 7, true),
      up,
      down: matrix(outer, width, 1),
      ...(e === 0 ? { downBias: f32(gaussian(hidden, seed + 5), [hidden]) } : {}),
      ...(reduces ? { reduce: matrix(inner, hidden, 2) } : {}),
      ...(expands ? { expand: matrix(hidden, outer, 3) } : {}),
    };
  });
}

const rowsOf = (w: QuantizedTensor): number[][] => {
  const values = dequantize(w).toArray();
  return Array.from({ length: w.rows }, (_, i) => values.slice(i * w.cols, (i + 1) * w.cols));
};
const dense = ({ gate, up, down, downBias, reduce, expand }: MoEExpert): DenseExpert => ({
  gate: gate && rowsOf(gate),
  up: rowsOf(up),
  down: rowsOf(down),
  downBias: downBias?.toArray(),
  reduce: reduce && rowsOf(reduce),
  expand: expand && rowsOf(expand),
});

function difference(actual: ArrayLike<number>, expected: number[]): number {
  const largest = Math.max(...expected.map(Math.abs), 1e-30);
  return Math.max(...expected.map((x, i) => Math.abs((actual[i] as number) - x) / largest));
}

describe('moeForward with experts of low rank', () => {
  const own = { tokens: 70, hidden: 96, width: 64, count: 7, topK: 2, seed: 3 };
  const x = f32(gaussian(own.tokens * own.hidden, 5), [own.tokens, own.hidden]);
  const tokens = Array.from({ length: own.tokens }, (_, t) => x.slice(t, t + 1).toArray());
  const routes = routesOf(own);

  it.each(levels)('equals the float64 reference at level %s', (isa) => {
    const list = lowRankExperts(own, ['q8_0', 'f32', 'u4_g32', 'q4_0', 'bf16']);
    const y = moeForward(x, routes, new MoEExperts(list), { isa });
    const expected = mixture(list.map(dense), tokens, lists(routes)).flat();
    expect(difference(y.data, expected)).toBeLessThan(2e-5);
    const one = moeForward(x.slice(0, 1), row(0), new MoEExperts(list), { isa });
    expect(difference(one.data, expected.slice(0, own.hidden))).toBeLessThan(2e-5);
  });

  const row = (t: number) => ({
    indices: routes.indices.slice(t, t + 1),
    weights: routes.weights.slice(t, t + 1),
  });

  it.each(levels.flatMap((isa) => (['dequant', 'tile'] as Algorithm[]).map((a) => ({ isa, a }))))(
    'gives the bits of its products one by one, however it is cut: %o',
    ({ isa, a: algorithm }) => {
      const list = lowRankExperts(own, ['q8_0', 'u4z_g32', 'q5_1']);
      const run = { compute: 'i8' as const, isa, algorithm };
      const experts = new MoEExperts(list);
      const y = moeForward(x, routes, experts, run);
      for (const options of [{ threads: 1 }, { threads: 3 }, { threads: 7 }, { maxRows: 5 }]) {
        const other = moeForward(x, routes, experts, { ...run, ...options });
        expect(firstDifference(y.data, other.data)).toBe(-1);
      }
      const expected = Tensor.zeros('f32', x.shape);
      list.forEach(({ gate, up, down, downBias, reduce, expand }, e) => {
        const of = lists(routes).flatMap((some, t) =>
          some.filter(([number]) => number === e).map(([, w]) => [t, w] as [number, number]),
        );
        if (of.length === 0) return;
        const rows = f32(
          of.flatMap(([t]) => tokens[t] as number[]),
          [of.length, own.hidden],
        );
        const input = reduce === undefined ? rows : matmul(rows, reduce, run);
        const h = swiglu(matmul(input, gate as QuantizedTensor, run), matmul(input, up, run), {
          isa,
        });
        const outer = matmul(h, down, run);
        const bare = expand === undefined ? outer : matmul(outer, expand, run);
        const products = downBias === undefined ? bare : add(bare, downBias, { isa });
        of.forEach(([t, w], i) => {
          const sum = expected.slice(t, t + 1);
          const weighted = mul(products.slice(i, i + 1), f32([w], []), { isa });
          add(sum, weighted, { out: sum, isa });
        });
      });
      expect(firstDifference(y.data, expected.data)).toBe(-1);
    },
  );

  it('applies the tensor scales of all factors', () => {
    const scaled = (at: number) => {
      const values = new Tensor('f32', gaussian(4096, at, 1 / 8), [64, 64]);
      return quantize(values, 'nvfp4', { tensorScale: 0.002 + 0.001 * at });
    };
    const list: MoEExpert[] = [
      { gate: scaled(1), up: scaled(2), down: scaled(3), reduce: scaled(4), expand: scaled(5) },
    ];
    const some = f32(gaussian(320, 6), [5, 64]);
    const all = {
      indices: Tensor.zeros('i32', [5, 1]),
      weights: f32(new Float32Array(5).fill(1), [5, 1]),
    };
    const rows = Array.from({ length: 5 }, (_, t) => some.slice(t, t + 1).toArray());
    const y = moeForward(some, all, new MoEExperts(list));
    const expected = mixture(list.map(dense), rows, lists(all)).flat();
    expect(difference(y.data, expected)).toBeLessThan(2e-5);
  });

  it('refuses factors that do not fit', () => {
    const [both] = lowRankExperts(own, ['q8_0']) as [MoEExpert];
    const cases: [object, string, string][] = [
      [
        { reduce: weights(32, 64, 'q8_0', 1, true) },
        'BL_INVALID_SHAPE',
        'MoEExperts: experts[1].reduce.cols is 64, expected 96 (= hidden)',
      ],
      [
        { reduce: weights(64, 96, 'q8_0', 1, true) },
        'BL_INVALID_SHAPE',
        'MoEExperts: experts[1].up.cols is 32, expected 64 (= reduce.rows)',
      ],
      [
        { reduce: undefined },
        'BL_INVALID_SHAPE',
        'MoEExperts: experts[1].up.cols is 32, expected 96 (= hidden)',
      ],
      [
        { expand: weights(64, 64, 'q8_0', 1, true) },
        'BL_INVALID_SHAPE',
        'MoEExperts: experts[1].expand.rows is 64, expected 96 (= hidden)',
      ],
      [
        { expand: weights(96, 32, 'q8_0', 1, true) },
        'BL_INVALID_SHAPE',
        'MoEExperts: experts[1].down.rows is 64, expected 32 (= expand.cols)',
      ],
      [
        { expand: [] },
        'BL_INVALID_ARGUMENT',
        'MoEExperts: experts[1].expand is an Array, expected a QuantizedTensor',
      ],
    ];
    for (const [change, code, message] of cases) {
      expectError(() => new MoEExperts([both, { ...both, ...change }]), code, message);
    }
    const experts = new MoEExperts([both]);
    const first = { ...row(0), indices: new Tensor('i32', [0], [1, 1]) };
    expectError(
      () =>
        moeForward(
          x.slice(0, 1),
          { ...first, weights: f32([1], [1, 1]) },
          new MoEExperts([{ ...both, reduce: weights(32, 96, 'f32', 1, true) }]),
          { algorithm: 'lut', compute: 'f32' },
        ),
      'BL_UNSUPPORTED',
      'moeForward: algorithm is lut, which has no kernel for compute f32 of experts[0].reduce, of format f32',
    );
    expect(experts.hiddenSize).toBe(96);
    experts.dispose({ weights: true });
    expect(both.expand?.disposed).toBe(true);
  });
});
