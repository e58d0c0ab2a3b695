import { argumentError } from '../../errors.js';
import { matmul } from '../../ops/matmul/matmul.js';
import { normalAt } from '../../ops/moe/noise.js';
import { QuantizedTensor } from '../../quantized_tensor.js';
import { Tensor } from '../../tensor.js';
import { symmetricEigen } from './eigen.js';

/** The first singular values of a matrix, and what its best approximations are made of. */
export interface TruncatedSVD {
  /** Squares of the singular values, falling. */
  readonly squares: Float64Array;
  /** Sum of the squares of all of them, which is that of the matrix. */
  readonly total: number;
  /**
   * The approximation of this rank (1 to `squares.length`) that loses the least, as a product; both factors have the
   * square roots of the singular values.
   *
   * @returns left [rows, rank], right [rank, cols]
   */
  factors(rank: number): { left: Tensor<'f32'>; right: Tensor<'f32'> };
}

// Up to here all vectors are found at once; beyond, a small part of them is found by subspace iteration.
const exactSize = 512;
const oversampling = 16;
const iterations = 4;

/**
 * The first `count` singular values and vectors of a matrix (Eckart and Young 1936: they give the best approximation of a
 * rank): eigenvectors of `a a^T` or `a^T a`, the smaller one. Of larger matrices a small `count` is found by subspace
 * iteration from random vectors (Halko, Martinsson and Tropp 2011), which loses little more where singular values fall. Products
 * are in f32: squares below 1e-7 of the first are noise.
 *
 * @param a [rows, cols], contiguous
 * @param count 1 to the smaller of both
 * @throws `BL_OUT_OF_RANGE`, `BL_NON_FINITE`
 */
export function truncatedSVD(a: Tensor<'f32'>, count: number): TruncatedSVD {
  const [rows = 0, cols = 0] = a.shape;
  const small = Math.min(rows, cols);
  if (!Number.isInteger(count) || count < 1 || count > small) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `truncatedSVD: count is ${count}, expected 1 to ${small} (the smaller side of [${a.shape}])`,
    );
  }
  const total = a.data.reduce((sum, x) => sum + x * x, 0);
  if (!Number.isFinite(total)) {
    throw argumentError('BL_NON_FINITE', 'truncatedSVD: the matrix has values that are not finite');
  }
  const wide = rows <= cols;
  const other = transposed(a);
  // [small, large] and [large, small]
  const [flat, tall] = wide ? [a, other] : [other, a];
  const exact = small <= exactSize || 2 * (count + oversampling) >= small;
  const { values, vectors } = exact ? allVectors(flat) : firstVectors(flat, tall, count);
  const squares = values.subarray(0, count).map((value) => Math.max(value, 0));
  return {
    squares,
    total,
    factors(rank) {
      const own = fromRows(vectors.slice(0, rank));
      const across = times(own, tall);
      for (let r = 0; r < rank; r++) {
        const root = (squares[r] as number) ** 0.25;
        scaleRow(own, r, root);
        scaleRow(across, r, root > 0 ? 1 / root : 0);
      }
      return wide
        ? { left: transposed(own), right: across }
        : { left: transposed(across), right: own };
    },
  };
}

/** x w^T. */
const times = (x: Tensor<'f32'>, w: Tensor<'f32'>): Tensor<'f32'> =>
  matmul(x, new QuantizedTensor('f32', w.bytes, w.shape as [number, number]), { compute: 'f32' });

/** The matrix with rows for columns, as a new tensor. */
export function transposed(a: Tensor<'f32'>): Tensor<'f32'> {
  const [rows = 0, cols = 0] = a.shape;
  const out = new Float32Array(rows * cols);
  const { data } = a;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) out[c * rows + r] = data[r * cols + c] as number;
  }
  return new Tensor('f32', out, [cols, rows]);
}

function fromRows(rows: readonly Float64Array[]): Tensor<'f32'> {
  const cols = rows[0]?.length ?? 0;
  const values = new Float32Array(rows.length * cols);
  rows.forEach((row, r) => {
    values.set(row, r * cols);
  });
  return new Tensor('f32', values, [rows.length, cols]);
}

const rowsOf = ({ data, shape }: Tensor<'f32'>): Float64Array[] => {
  const [rows = 0, cols = 0] = shape;
  return Array.from({ length: rows }, (_, r) =>
    Float64Array.from(data.subarray(r * cols, (r + 1) * cols)),
  );
};

function scaleRow({ data, shape }: Tensor<'f32'>, r: number, factor: number): void {
  const cols = shape[1] as number;
  for (let i = r * cols; i < (r + 1) * cols; i++) data[i] = (data[i] as number) * factor;
}

const allVectors = (flat: Tensor<'f32'>) => symmetricEigen(rowsOf(times(flat, flat)));

function firstVectors(flat: Tensor<'f32'>, tall: Tensor<'f32'>, count: number) {
  const [small = 0] = flat.shape;
  let basis: Float64Array[] = Array.from({ length: count + oversampling }, (_, r) =>
    Float64Array.from({ length: small }, (_, c) => normalAt(1, r * small + c)),
  );
  orthonormalize(basis);
  for (let i = 0; i < iterations; i++) {
    basis = rowsOf(times(times(fromRows(basis), tall), flat));
    orthonormalize(basis);
  }
  const inside = times(fromRows(basis), tall);
  const { values, vectors } = symmetricEigen(rowsOf(times(inside, inside)));
  const turned = vectors.slice(0, count).map((vector) => {
    const sum = new Float64Array(small);
    vector.forEach((factor, r) => {
      addTo(sum, basis[r] as Float64Array, factor);
    });
    return sum;
  });
  return { values, vectors: turned };
}

function addTo(sum: Float64Array, row: Float64Array, factor: number): void {
  for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + factor * (row[i] as number);
}

/** Gram-Schmidt, twice; rows that depend on those before them become 0. */
function orthonormalize(rows: readonly Float64Array[]): void {
  const dot = (x: Float64Array, y: Float64Array) => {
    let sum = 0;
    for (let i = 0; i < x.length; i++) sum += (x[i] as number) * (y[i] as number);
    return sum;
  };
  rows.forEach((row, r) => {
    const before = Math.sqrt(dot(row, row));
    for (let pass = 0; pass < 2; pass++) {
      for (const other of rows.slice(0, r)) addTo(row, other, -dot(row, other));
    }
    const norm = Math.sqrt(dot(row, row));
    const factor = norm > 1e-12 * before ? 1 / norm : 0;
    for (let i = 0; i < row.length; i++) row[i] = (row[i] as number) * factor;
  });
}
