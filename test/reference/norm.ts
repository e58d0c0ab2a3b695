/** Norms of one row in float64, from their formulas. */
export function rmsNormRow(
  x: readonly number[],
  weight: readonly number[] | undefined,
  epsilon: number,
): number[] {
  let sum = 0;
  for (const value of x) sum += value * value;
  const root = Math.sqrt(sum / x.length + epsilon);
  return x.map((value, i) => (value / root) * (weight?.[i] ?? 1));
}

export function layerNormRow(
  x: readonly number[],
  weight: readonly number[] | undefined,
  bias: readonly number[] | undefined,
  epsilon: number,
): number[] {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  return x.map(
    (value, i) =>
      ((value - mean) / Math.sqrt(variance + epsilon)) * (weight?.[i] ?? 1) + (bias?.[i] ?? 0),
  );
}

/** Applies a function of rows to all rows of length `length`. */
export function byRow(
  x: readonly number[],
  length: number,
  row: (x: number[]) => number[],
): number[] {
  const out: number[] = [];
  for (let i = 0; i < x.length; i += length) out.push(...row(x.slice(i, i + length)));
  return out;
}
