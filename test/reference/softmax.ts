/** Softmax of one row in float64, from its formula with the maximum taken off. */
export function softmaxRow(x: readonly number[], scale: number): number[] {
  const scaled = x.map((value) => scale * value);
  let max = Number.NEGATIVE_INFINITY;
  for (const value of scaled) if (value > max) max = value;
  const powers = scaled.map((value) => Math.exp(value - max));
  const sum = powers.reduce((total, value) => total + value, 0);
  return powers.map((value) => value / sum);
}
