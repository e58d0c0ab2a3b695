import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type FloatDType,
  type MatmulOptions,
  matmul,
  matmulAsync,
  pack,
  Tensor,
} from '../../lib/index.js';
import { quantized } from '../quantize/cases.js';
import { type ReferenceOptions, referenceOutputs, roundGroups } from '../reference/matmul.js';
import { onDevice } from '../reference/op_checks.js';
import { gaussian, randomSource } from '../reference/random.js';
import { floatTypes, isasHere, strided, thrown } from '../reference/views.js';
import { bytesEqual, decoded, expectOutputs } from './cases.js';

/** A sparse matrix in CSR form, about `density` of its elements set, some rows empty. */
function sparse(n: number, k: number, density: number, seed: number) {
  const random = randomSource(seed);
  const rowOffsets = [0];
  const columns: number[] = [];
  for (let row = 0; row < n; row++) {
    for (let column = 0; row % 5 !== 3 && column < k; column++) {
      if (random() < density) columns.push(column);
    }
    rowOffsets.push(columns.length);
  }
  return { rowOffsets, columns };
}

const i32 = (values: number[]): Tensor<'i32'> =>
  new Tensor('i32', Int32Array.from(values), [values.length]);

/** [rows, cols] over memory that holds it column after column. */
function transposed(
  dtype: FloatDType,
  values: Float32Array,
  rows: number,
  cols: number,
): Tensor<FloatDType> {
  const turned = Array.from(
    { length: rows * cols },
    (_, i) => values[(i % rows) * cols + Math.floor(i / rows)] as number,
  );
  const dense = new Tensor<FloatDType>(dtype, turned, [rows * cols]);
  return new Tensor<FloatDType>(dtype, dense.bytes, [rows, cols], { strides: [1, rows] });
}

describe('matmul: low-rank and sparse terms', () => {
  it.each(isasHere)('equals the float64 reference at level %s', (isa) => {
    fc.assert(
      fc.property(
        fc.record({
          m: fc.integer({ min: 1, max: 35 }),
          n: fc.integer({ min: 1, max: 40 }),
          k: fc.integer({ min: 1, max: 90 }),
          rank: fc.integer({ min: 1, max: 9 }),
          adapters: fc.integer({ min: 0, max: 4 }),
          dtype: fc.constantFrom(...floatTypes),
          from: fc.constantFrom(...floatTypes),
          density: fc.constantFrom(0, 0.02, 0.6),
          activation: fc.constantFrom('none', 'silu', 'swiglu') as fc.Arbitrary<
            'none' | 'silu' | 'swiglu'
          >,
          compute: fc.constantFrom('f32', 'i8') as fc.Arbitrary<'f32' | 'i8'>,
          turned: fc.boolean(),
          lowRank: fc.boolean(),
          seed: fc.integer({ min: 1, max: 1000 }),
        }),
        (p) => {
          const { m, k, rank, dtype, seed } = p;
          const n = p.activation === 'swiglu' ? 2 * p.n : p.n;
          const b = quantized('u4_g32', gaussian(n * k, seed, 0.2), [n, k]);
          const a = strided(p.from, gaussian(m * k, seed + 1), [m, k], 1);
          const seen = a.toArray();
          // By dequant: tiles round to int8 in a way of their own.
          const options: MatmulOptions = {
            isa,
            activation: p.activation,
            compute: p.compute,
            algorithm: 'dequant',
          };
          const o: ReferenceOptions = { activation: p.activation, rank, lowRankScale: 0.5 };
          if (p.lowRank && p.adapters === 0) {
            const down = strided(dtype, gaussian(rank * k, seed + 2), [rank, k], 1);
            const values = gaussian(n * rank, seed + 3);
            const up = p.turned
              ? transposed(dtype, values, n, rank)
              : strided(dtype, values, [n, rank], 1);
            options.lowRank = { down, up, scale: 0.5 };
            const term = { down: down.toArray(), up: up.toArray() };
            o.lowRank = () => term;
          } else if (p.lowRank) {
            const count = p.adapters;
            const down = strided(dtype, gaussian(count * rank * k, seed + 2), [count, rank, k], 0);
            const up = strided(dtype, gaussian(count * n * rank, seed + 3), [count, n, rank], 1);
            const ids = Array.from({ length: m }, (_, row) => ((row * 7 + seed) % (count + 1)) - 1);
            options.adapters = { down, up, ids: i32(ids), scale: 0.5 };
            const downs = down.toArray();
            const ups = up.toArray();
            o.lowRank = (row) => {
              const id = ids[row] as number;
              if (id < 0) return undefined;
              return {
                down: downs.slice(id * rank * k, (id + 1) * rank * k),
                up: ups.slice(id * n * rank, (id + 1) * n * rank),
              };
            };
          }
          if (p.density > 0) {
            const { rowOffsets, columns } = sparse(n, k, p.density, seed + 4);
            const values = new Tensor<FloatDType>(
              dtype,
              [...gaussian(columns.length, seed + 5)],
              [columns.length],
            );
            options.outliers = { rowOffsets: i32(rowOffsets), columns: i32(columns), values };
            o.outliers = { rowOffsets, columns, values: values.toArray() };
          }
          const product = p.compute === 'i8' ? roundGroups(seen, k, 32) : seen;
          const expected = referenceOutputs(product, seen, decoded(b), m, n, o);
          expectOutputs(matmul(a, b, options), expected, JSON.stringify(p));
        },
      ),
      { numRuns: 80 },
    );
  });

  const [m, n, k, rank] = [37, 48, 96, 5];
  const a = new Tensor('f32', gaussian(m * k, 1), [m, k]);
  const b = quantized('q4_0', gaussian(n * k, 2), [n, k]);
  const { rowOffsets, columns } = sparse(n, k, 0.1, 3);
  const outliers = {
    rowOffsets: i32(rowOffsets),
    columns: i32(columns),
    values: new Tensor('f16', [...gaussian(columns.length, 4)], [columns.length]),
  };
  const down = new Tensor('bf16', [...gaussian(2 * rank * k, 5)], [2, rank, k]);
  const up = new Tensor('f16', [...gaussian(2 * n * rank, 6)], [2, n, rank]);
  const ids = Array.from({ length: m }, (_, row) => (row % 3) - 1);

  it.each(isasHere)('does not depend on threads, layout or the other rows at level %s', (isa) => {
    const options = { isa, outliers, adapters: { down, up, ids: i32(ids) } } as const;
    const once = matmul(a, b, { ...options, threads: 1 });
    for (const threads of [2, 3, 7]) {
      expect(bytesEqual(matmul(a, b, { ...options, threads }), once)).toBe(true);
    }
    expect(bytesEqual(matmul(a, pack(b, { layout: 'lanes16' }), options), once)).toBe(true);
    const adapters = { down, up, ids: i32(ids.slice(34, 35)) };
    const alone = matmul(a.slice(34, 35), b, { ...options, adapters });
    // On devices 35 rows are another kernel's than one.
    if (!onDevice) expect([...alone.data]).toEqual([...once.data.subarray(34 * n, 35 * n)]);
    const row = new Tensor('f32', a.data.slice(34 * k, 35 * k), [k]);
    expect([...matmul(row, b, { ...options, adapters }).data]).toEqual([...alone.data]);
  });

  it('gives the same async, and takes long rows of outliers', async () => {
    const [rows, cols] = [2, 700];
    const every = Array.from({ length: cols }, (_, i) => i);
    const full = {
      rowOffsets: i32([0, cols, cols]),
      columns: i32(every),
      values: new Tensor('f32', gaussian(cols, 7), [cols]),
    };
    const x = new Tensor('f32', gaussian(3 * cols, 8), [3, cols]);
    const zeros = quantized('f32', new Float32Array(rows * cols), [rows, cols]);
    for (const isa of isasHere) {
      const dense = quantized(
        'f32',
        Float32Array.from({ length: rows * cols }, (_, i) => full.values.data[i] ?? 0),
        [rows, cols],
      );
      const expected = referenceOutputs(x.data, x.data, decoded(dense), 3, rows);
      expectOutputs(matmul(x, zeros, { isa, outliers: full }), expected);
      expect(
        bytesEqual(
          await matmulAsync(x, zeros, { isa, outliers: full }),
          matmul(x, zeros, { isa, outliers: full }),
        ),
      ).toBe(true);
    }
  });

  it('stays in its row with NaN and infinity', () => {
    const values = gaussian(2 * k, 9);
    values[k + 3] = Number.POSITIVE_INFINITY;
    for (const isa of isasHere) {
      const lowRank = {
        down: down.reshape([2 * rank, k]).slice(0, rank),
        up: up.reshape([2 * n, rank]).slice(0, n),
      };
      const c = matmul(new Tensor('f32', values, [2, k]), b, { isa, lowRank, outliers }).data;
      expect(c.subarray(0, n).every(Number.isFinite)).toBe(true);
      expect(c.subarray(n).some(Number.isFinite)).toBe(false);
    }
  });

  it('takes no outliers, no rank and no rows', () => {
    const none = {
      rowOffsets: i32(new Array(n + 1).fill(0)),
      columns: i32([]),
      values: Tensor.zeros('f16', [0]),
    };
    const lowRank = { down: Tensor.zeros('f32', [0, k]), up: Tensor.zeros('f32', [n, 0]) };
    expect(bytesEqual(matmul(a, b, { outliers: none, lowRank }), matmul(a, b))).toBe(true);
    expect(matmul(Tensor.zeros('f32', [0, k]), b, { outliers }).shape).toEqual([0, n]);
  });

  const one = { down: Tensor.zeros('f32', [3, k]), up: Tensor.zeros('f32', [n, 3]) };
  const offsets = (change: (values: number[]) => void): Tensor<'i32'> => {
    const values = [...rowOffsets];
    change(values);
    return i32(values);
  };
  const nnz = columns.length;
  it.each<[string, string, MatmulOptions]>([
    [
      'BL_INVALID_SHAPE',
      "matmul: lowRank.down.shape[1] is 95, expected 96 (= a's columns)",
      { lowRank: { ...one, down: Tensor.zeros('f32', [3, 95]) } },
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: lowRank.up.shape[0] is 47, expected 48 (= b.rows)',
      { lowRank: { ...one, up: Tensor.zeros('f32', [47, 3]) } },
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: lowRank.up.shape[1] is 4, expected 3 (= the rank of lowRank.down)',
      { lowRank: { ...one, up: Tensor.zeros('f32', [48, 4]) } },
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: adapters.up.rank is 2, expected 3',
      { adapters: { down, up: one.up, ids: i32(ids) } },
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: lowRank.down.shape[0] is 2, expected 1 (one adapter), or adapters.ids',
      { lowRank: { down, up } },
    ],
    [
      'BL_INVALID_SHAPE',
      "matmul: adapters.ids.shape[0] is 2, expected 37 (= a's rows)",
      { adapters: { down, up, ids: i32([0, 1]) } },
    ],
    [
      'BL_OUT_OF_RANGE',
      'matmul: adapters.ids[0] is 2, expected -1 to 1',
      { adapters: { down, up, ids: i32(ids.with(0, 2)) } },
    ],
    [
      'BL_OUT_OF_RANGE',
      'matmul: adapters.ids[36] is -2, expected -1 to 1',
      { adapters: { down, up, ids: i32(ids.with(36, -2)) } },
    ],
    [
      'BL_NON_FINITE',
      'matmul: lowRank.scale is nan, expected a finite number',
      { lowRank: { ...one, scale: Number.NaN } },
    ],
    [
      'BL_INVALID_DTYPE',
      'matmul: lowRank.down.dtype is i8, expected f32 or f16 or bf16',
      { lowRank: { ...one, down: Tensor.zeros('i8', [3, k]) as never } },
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: lowRank and adapters are given, expected one of them',
      { lowRank: one, adapters: { down, up, ids: i32(ids) } },
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: outliers.rowOffsets.shape[0] is 48, expected 49 (= b.rows + 1)',
      { outliers: { ...outliers, rowOffsets: i32(rowOffsets.slice(1)) } },
    ],
    [
      'BL_OUT_OF_RANGE',
      'matmul: outliers.rowOffsets[0] is 1, expected 0',
      { outliers: { ...outliers, rowOffsets: offsets((v) => v.splice(0, 1, 1)) } },
    ],
    [
      'BL_OUT_OF_RANGE',
      `matmul: outliers.rowOffsets[3] is 0, expected at least ${rowOffsets[2]}`,
      { outliers: { ...outliers, rowOffsets: offsets((v) => v.splice(3, 1, 0)) } },
    ],
    [
      'BL_OUT_OF_RANGE',
      `matmul: outliers.rowOffsets[48] is ${nnz + 1}, expected ${nnz} (= outliers.values.shape[0])`,
      { outliers: { ...outliers, rowOffsets: offsets((v) => v.splice(48, 1, nnz + 1)) } },
    ],
    [
      'BL_OUT_OF_RANGE',
      'matmul: outliers.columns[2] is 96, expected 0 to 95',
      { outliers: { ...outliers, columns: i32(columns.with(2, 96)) } },
    ],
    [
      'BL_OUT_OF_RANGE',
      'matmul: outliers.columns[0] is -5, expected 0 to 95',
      { outliers: { ...outliers, columns: i32(columns.with(0, -5)) } },
    ],
    [
      'BL_INVALID_SHAPE',
      `matmul: outliers.columns.shape[0] is ${nnz - 1}, expected ${nnz} (= outliers.values.shape[0])`,
      { outliers: { ...outliers, columns: i32(columns.slice(1)) } },
    ],
  ])('refuses with %s: %s', (code, message, options) => {
    const out = new Tensor('f32', new Float32Array(m * n).fill(7), [m, n]);
    expect(thrown(() => matmul(a, b, { ...options, out }))).toMatchObject({ code, message });
    expect(out.data.every((value) => value === 7)).toBe(true);
  });
});
