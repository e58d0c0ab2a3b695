/** Matrix products in double precision, from the formula: the yardstick of every matmul kernel. */
import { geluErf, geluTanh, silu } from './elementwise.js';

/** c[m][n] = sum_k a[m][k] * b[n][k] + bias[n], with the sum of |products| as the scale of its error. */
export function referenceMatmul(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  m: number,
  n: number,
  k: number,
  bias?: ArrayLike<number>,
): { values: Float64Array; magnitudes: Float64Array } {
  const values = new Float64Array(m * n);
  const magnitudes = new Float64Array(m * n);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = bias === undefined ? 0 : (bias[j] as number);
      let magnitude = Math.abs(sum);
      for (let l = 0; l < k; l++) {
        const product = (a[i * k + l] as number) * (b[j * k + l] as number);
        sum += product;
        magnitude += Math.abs(product);
      }
      values[i * n + j] = sum;
      magnitudes[i * n + j] = magnitude;
    }
  }
  return { values, magnitudes };
}

/**
 * Activations rounded to int8 in groups of 32, as compute 'i8' defines it (native/ops/matmul/kernel.h):
 * scale = max / 127 and code = x * (127 / max) to nearest even, all in f32.
 */
export function roundActivations(a: Float32Array, m: number, k: number): Float64Array {
  const rounded = new Float64Array(m * k);
  for (let i = 0; i < m; i++) {
    for (let begin = 0; begin < k; begin += 32) {
      const end = Math.min(begin + 32, k);
      let largest = 0;
      for (let l = begin; l < end; l++)
        largest = Math.max(largest, Math.abs(a[i * k + l] as number));
      if (largest < 1.5e-36) continue;
      const inverse = Math.fround(127 / largest);
      const scale = Math.fround(largest / 127);
      for (let l = begin; l < end; l++) {
        rounded[i * k + l] = nearestEven(Math.fround((a[i * k + l] as number) * inverse)) * scale;
      }
    }
  }
  return rounded;
}

function nearestEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * Largest error of a product, relative to the sum of its |products|. The processor adds in f32: some roundings of 2^-24. Devices
 * multiply f16: activations are rounded once and weights at most twice (an entry or a scale, and their product), 2^-11 each.
 */
export const productBound =
  process.env.BITLOOM_TEST_DEVICE === undefined ? 2 ** -20 : 3 * 2 ** -11 + 2 ** -20;

/** What stands around the products, in the order in which it is applied; arrays row by row. */
export interface ReferenceOptions {
  scale?: number;
  /** [n] */
  rowScale?: ArrayLike<number>;
  /** [m, n] */
  addend?: ArrayLike<number>;
  /** [n] */
  bias?: ArrayLike<number>;
  /** Term of each row of a: down [rank, k], up [n, rank]; undefined: none. */
  lowRank?: (row: number) => { down: ArrayLike<number>; up: ArrayLike<number> } | undefined;
  rank?: number;
  lowRankScale?: number;
  outliers?: {
    rowOffsets: ArrayLike<number>;
    columns: ArrayLike<number>;
    values: ArrayLike<number>;
  };
  activation?: 'none' | 'silu' | 'gelu' | 'geluTanh' | 'relu' | 'swiglu' | 'geglu';
  /** [m, n], or [m, n / 2] with swiglu and geglu */
  residual?: ArrayLike<number>;
}

/**
 * activation(a b^T * rowScale * scale + addend + bias + lowRank + outliers) + residual. `product` is what the product
 * sees of the activations [m, bK], `a` what the other terms see [m, k]. `bounds` bounds the error of an f32
 * computation: 2^-20 of the sums of magnitudes, carried through the activation (slopes below 1.2), and the activation
 * kernels' own.
 */
export function referenceOutputs(
  product: ArrayLike<number>,
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  m: number,
  n: number,
  o: ReferenceOptions = {},
): { values: Float64Array; bounds: Float64Array } {
  const k = a.length / m;
  const { values, magnitudes } = referenceMatmul(product, b, m, n, product.length / m);
  for (let i = 0; i < m * n; i++) {
    const row = Math.floor(i / n);
    const column = i % n;
    const factor = (o.scale ?? 1) * (o.rowScale?.[column] ?? 1);
    let sum = (values[i] as number) * factor;
    let magnitude = (magnitudes[i] as number) * Math.abs(factor);
    const add = (term: number, size = Math.abs(term)): void => {
      sum += term;
      magnitude += size;
    };
    add(o.addend?.[i] ?? 0);
    add(o.bias?.[column] ?? 0);
    const term = o.lowRank?.(row);
    for (let r = 0; term !== undefined && r < (o.rank as number); r++) {
      let dot = 0;
      let size = 0;
      for (let l = 0; l < k; l++) {
        const x = (a[row * k + l] as number) * (term.down[r * k + l] as number);
        dot += x;
        size += Math.abs(x);
      }
      const up = (o.lowRankScale ?? 1) * (term.up[column * (o.rank as number) + r] as number);
      add(up * dot, Math.abs(up) * size);
    }
    const begin = o.outliers?.rowOffsets[column] ?? 0;
    const end = o.outliers?.rowOffsets[column + 1] ?? 0;
    for (let j = begin; j < end; j++) {
      const at = row * k + (o.outliers?.columns[j] as number);
      add((a[at] as number) * (o.outliers?.values[j] as number));
    }
    values[i] = sum;
    magnitudes[i] = magnitude * productBound;
  }
  return activated(values, magnitudes, m, n, o);
}

function activated(
  y: Float64Array,
  errors: Float64Array,
  m: number,
  n: number,
  o: ReferenceOptions,
): { values: Float64Array; bounds: Float64Array } {
  const activation = o.activation ?? 'none';
  const gated = activation === 'swiglu' || activation === 'geglu';
  const columns = gated ? n / 2 : n;
  const values = new Float64Array(m * columns);
  const bounds = new Float64Array(m * columns);
  const functions = {
    none: (x: number) => x,
    relu: (x: number) => Math.max(x, 0),
    silu,
    gelu: geluErf,
    geluTanh,
    swiglu: silu,
    geglu: geluErf,
  };
  const f = functions[activation];
  for (let i = 0; i < m * columns; i++) {
    const at = Math.floor(i / columns) * n + (i % columns);
    const x = y[at] as number;
    const error = errors[at] as number;
    const up = gated ? (y[at + columns] as number) : 1;
    const upError = gated ? (errors[at + columns] as number) : 0;
    const value = f(x) * up;
    // The kernels' error: 14 units for gelu by erf, 12 + 8 |u| for its tanh form, |u| below 1.6 |x| (1 + x^2 / 20).
    const units = 16 + (activation === 'geluTanh' ? 8 * 1.6 * Math.abs(x) * (1 + (x * x) / 20) : 0);
    const residual = o.residual?.[i] ?? 0;
    values[i] = value + residual;
    bounds[i] =
      1.2 * error * (Math.abs(up) + upError) +
      (Math.abs(f(x)) + 1.2 * error) * upError +
      units * 2 ** -24 * (Math.abs(value) + Math.abs(residual)) +
      1e-36;
  }
  return { values, bounds };
}

/** Rounds to `levels` steps of the largest of each `group` of a row, as `roundActivations` does. */
export function roundGroups(
  a: ArrayLike<number>,
  k: number,
  group: number,
  levels = 127,
): Float64Array {
  const rounded = new Float64Array(a.length);
  for (let row = 0; row < a.length; row += k) {
    for (let begin = row; begin < row + k; begin += group) {
      const end = Math.min(begin + group, row + k);
      let largest = 0;
      for (let l = begin; l < end; l++) largest = Math.max(largest, Math.abs(a[l] as number));
      if (largest < 1.5e-36) continue;
      const inverse = Math.fround(levels / largest);
      const scale = Math.fround(largest / levels);
      for (let l = begin; l < end; l++) {
        rounded[l] = nearestEven(Math.fround((a[l] as number) * inverse)) * scale;
      }
    }
  }
  return rounded;
}

/** Activations as compute 'i1' takes them: sign(x) * mean |x| of the row, sign(0) = 1. */
export function roundSigns(a: ArrayLike<number>, k: number): Float64Array {
  const rounded = new Float64Array(a.length);
  for (let row = 0; row < a.length; row += k) {
    let sum = 0;
    for (let l = row; l < row + k; l++) sum += Math.abs(a[l] as number);
    for (let l = row; l < row + k; l++) rounded[l] = ((a[l] as number) >= 0 ? sum : -sum) / k;
  }
  return rounded;
}

/** The e4m3 number nearest to x (ties to even), at most 448 in magnitude: 3 bits after the first, steps of 2^-9 at least. */
export function nearestE4m3(x: number): number {
  const size = Math.abs(x);
  if (size === 0) return x;
  const step = 2 ** Math.max(Math.floor(Math.log2(size)) - 3, -9);
  return Math.sign(x) * Math.min(nearestEven(size / step) * step, 448);
}

/** Activations as compute 'e4m3' takes them: a scale per row, or the least power of two per 32. */
export function roundE4m3(a: ArrayLike<number>, k: number, group: 32 | 'row'): Float64Array {
  const rounded = new Float64Array(a.length);
  const size = group === 'row' ? k : group;
  for (let row = 0; row < a.length; row += k) {
    for (let begin = row; begin < row + k; begin += size) {
      const end = Math.min(begin + size, row + k);
      let largest = 0;
      for (let l = begin; l < end; l++) largest = Math.max(largest, Math.abs(a[l] as number));
      if (group === 'row' && largest < 1.5e-36) continue;
      let power = 2 ** -117;
      while (largest > 448 * power) power *= 2;
      const inverse = group === 'row' ? Math.fround(448 / largest) : 1 / power;
      const scale = group === 'row' ? Math.fround(largest / 448) : power;
      for (let l = begin; l < end; l++) {
        rounded[l] = nearestE4m3(Math.fround((a[l] as number) * inverse)) * scale;
      }
    }
  }
  return rounded;
}
