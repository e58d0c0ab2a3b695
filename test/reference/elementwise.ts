/** Elementwise operators in float64, from their formulas. */

/** x * sigmoid(y), without overflow of the exponential where the result is finite. */
function timesSigmoid(x: number, y: number): number {
  if (y >= 0 || Number.isNaN(y)) return x / (1 + Math.exp(-y));
  return (x * Math.exp(y)) / (1 + Math.exp(y));
}

export const silu = (x: number): number => timesSigmoid(x, x);

/**
 * Complementary error function. |z| < 2.5: Maclaurin series of erf (DLMF 7.6.2, all terms positive); beyond:
 * Laplace's continued fraction (DLMF 7.9.3), evaluated from its 120th level up.
 */
export function erfc(z: number): number {
  if (Number.isNaN(z)) return z;
  if (z < 0) return 2 - erfc(-z);
  if (z > 40) return 0;
  if (z < 2.5) {
    let term = z;
    let sum = z;
    for (let n = 1; n < 80; n++) {
      term *= (2 * z * z) / (2 * n + 1);
      sum += term;
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * sum;
  }
  let fraction = z;
  for (let k = 120; k >= 1; k--) fraction = z + k / 2 / fraction;
  return Math.exp(-z * z) / Math.sqrt(Math.PI) / fraction;
}

export const geluErf = (x: number): number => 0.5 * x * erfc(-x / Math.SQRT2);

/** The argument of the sigmoid in gelu's tanh approximation. */
export const geluTanhArgument = (x: number): number =>
  Math.sqrt(8 / Math.PI) * (x + 0.044715 * x ** 3);
export const geluTanh = (x: number): number => timesSigmoid(x, geluTanhArgument(x));
