import { describe, expect, it } from 'vitest';
import { Tensor } from '../../../lib/index.js';
import { truncatedSVD } from '../../../lib/nn/low_rank/truncated_svd.js';
import { expectError } from '../../reference/op_checks.js';
import { gaussian } from '../../reference/random.js';

const f32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('f32', Float32Array.from(values), shape);

/** A matrix of these singular values: sums of products of orthonormal cosines. */
function withValues(rows: number, cols: number, values: number[]): Tensor<'f32'> {
  const wave = (n: number, k: number, i: number) =>
    Math.sqrt((k === 0 ? 1 : 2) / n) * Math.cos((Math.PI * k * (i + 0.5)) / n);
  const out = new Float64Array(rows * cols);
  values.forEach((value, k) => {
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) {
        out[r * cols + c] =
          (out[r * cols + c] as number) + value * wave(rows, k, r) * wave(cols, k, c);
      }
    }
  });
  return f32(out, [rows, cols]);
}

/** Squares of a - left right, in float64. */
function lost(a: Tensor<'f32'>, left: Tensor<'f32'>, right: Tensor<'f32'>): number {
  const [rows = 0, cols = 0] = a.shape;
  const rank = right.shape[0] as number;
  let sum = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      let value = a.data[r * cols + c] as number;
      for (let k = 0; k < rank; k++) {
        value -= (left.data[r * rank + k] as number) * (right.data[k * cols + c] as number);
      }
      sum += value * value;
    }
  }
  return sum;
}

describe('truncatedSVD', () => {
  it.each([
    [12, 30],
    [30, 12],
    [9, 9],
  ])('finds planted singular values, and loses what is left of them: [%i, %i]', (rows, cols) => {
    const values = [8, 5, 3, 1, 0.5];
    const a = withValues(rows, cols, values);
    const svd = truncatedSVD(a, 9);
    expect(svd.total).toBeCloseTo(64 + 25 + 9 + 1 + 0.25, 4);
    values.forEach((value, i) => {
      expect(svd.squares[i]).toBeCloseTo(value ** 2, 4);
    });
    for (let rank = 1; rank <= 9; rank++) {
      const { left, right } = svd.factors(rank);
      expect([left.shape, right.shape]).toEqual([
        [rows, rank],
        [rank, cols],
      ]);
      const rest = values.slice(rank).reduce((sum, value) => sum + value ** 2, 0);
      expect(lost(a, left, right)).toBeCloseTo(rest, 4);
    }
  });

  it('reproduces a random matrix at its full rank', () => {
    const a = f32(gaussian(20 * 33, 4), [20, 33]);
    const { left, right } = truncatedSVD(a, 20).factors(20);
    expect(lost(a, left, right) / 660).toBeLessThan(1e-10);
  });

  it('finds a few vectors of a large matrix as well as all of them', () => {
    const values = Array.from({ length: 60 }, (_, k) => 20 * 0.85 ** k);
    const a = withValues(600, 700, values);
    const svd = truncatedSVD(a, 12);
    for (let i = 0; i < 12; i++) {
      const square = (values[i] as number) ** 2;
      expect(Math.abs((svd.squares[i] as number) - square)).toBeLessThan(1e-4 * 400);
    }
    const { left, right } = svd.factors(12);
    const rest = values.slice(12).reduce((sum, value) => sum + value ** 2, 0);
    expect(Math.abs(lost(a, left, right) - rest)).toBeLessThan(1e-3 * rest);
  });

  it('takes zeros, refuses counts and values that are none', () => {
    const { left, right } = truncatedSVD(Tensor.zeros('f32', [3, 4]), 2).factors(2);
    expect([...left.data, ...right.data].every((value) => value === 0)).toBe(true);
    expectError(
      () => truncatedSVD(Tensor.zeros('f32', [3, 4]), 4),
      'BL_OUT_OF_RANGE',
      'truncatedSVD: count is 4, expected 1 to 3 (the smaller side of [3,4])',
    );
    expectError(
      () => truncatedSVD(f32([1, Number.NaN], [1, 2]), 1),
      'BL_NON_FINITE',
      'truncatedSVD: the matrix has values that are not finite',
    );
  });
});
