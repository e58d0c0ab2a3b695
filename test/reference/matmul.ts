/** Matrix products in double precision, from the formula: the yardstick of every matmul kernel. */

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
