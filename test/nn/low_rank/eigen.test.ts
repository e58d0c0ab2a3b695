import { describe, expect, it } from 'vitest';
import { symmetricEigen } from '../../../lib/nn/low_rank/eigen.js';
import { randomNumbers } from '../random_model.js';

function symmetric(n: number, seed: number, of: (i: number, j: number) => number): Float64Array[] {
  const random = randomNumbers(seed);
  const rows = Array.from({ length: n }, () => new Float64Array(n));
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const x = random() * of(i, j);
      (rows[i] as Float64Array)[j] = x;
      (rows[j] as Float64Array)[i] = x;
    }
  }
  return rows;
}

describe('symmetricEigen', () => {
  it.each([
    ['nothing', 0, () => 1],
    ['one', 1, () => 1],
    ['two', 2, () => 1],
    ['random', 40, () => 1],
    ['zeros', 7, () => 0],
    ['diagonal, with equal values', 9, (i: number, j: number) => (i === j ? 1 : 0)],
    ['blocks', 12, (i: number, j: number) => (Math.floor(i / 4) === Math.floor(j / 4) ? 1 : 0)],
    ['of many sizes', 30, (i: number, j: number) => 10 ** -((i + j) / 4)],
  ] as const)('%s: A v = lambda v, v orthonormal, values falling', (_, n, of) => {
    const a = symmetric(n, 5, of);
    const { values, vectors } = symmetricEigen(a);
    const size = Math.max(...values.map(Math.abs), 1e-300);
    for (let k = 0; k < n; k++) {
      const v = vectors[k] as Float64Array;
      if (k > 0) expect(values[k]).toBeLessThanOrEqual(values[k - 1] as number);
      for (let i = 0; i < n; i++) {
        const row = a[i] as Float64Array;
        const product = row.reduce((sum, x, j) => sum + x * (v[j] as number), 0);
        expect(Math.abs(product - (values[k] as number) * (v[i] as number))).toBeLessThan(
          1e-13 * n * size,
        );
      }
      for (let l = 0; l < n; l++) {
        const w = vectors[l] as Float64Array;
        const inner = v.reduce((sum, x, i) => sum + x * (w[i] as number), 0);
        expect(Math.abs(inner - (k === l ? 1 : 0))).toBeLessThan(1e-13 * n);
      }
    }
    const trace = a.reduce((sum, row, i) => sum + (row[i] as number), 0);
    expect(Math.abs(values.reduce((sum, x) => sum + x, 0) - trace)).toBeLessThanOrEqual(
      1e-13 * n * size,
    );
  });
});
