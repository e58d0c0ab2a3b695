/** Routes gathered by expert and products of experts from their formulas (native/include/bitloom_block_sparse.h), in double. */

/** Rows [rows][columns] of doubles. */
export type Rows = number[][];

export const matrix = (values: ArrayLike<number>, rows: number, columns: number): Rows =>
  Array.from({ length: rows }, (_, r) =>
    Array.from({ length: columns }, (_, c) => values[r * columns + c] as number),
  );

export const transposed = (a: Rows, columns: number): Rows =>
  Array.from({ length: columns }, (_, c) => a.map((row) => row[c] as number));

/** a [m, k] times b [k, n]. */
export const product = (a: Rows, b: Rows, n: number): Rows =>
  a.map((row) =>
    Array.from({ length: n }, (_, j) =>
      row.reduce((sum, x, k) => sum + x * ((b[k] as number[])[j] as number), 0),
    ),
  );

/** Sums of |a| |b|: what rounding errors are relative to. */
export const magnitude = (a: Rows, b: Rows, n: number): Rows =>
  product(
    a.map((row) => row.map(Math.abs)),
    b.map((row) => row.map(Math.abs)),
    n,
  );

/** Where each route's row stands; -1 of those that go nowhere. */
export function permutation(indices: readonly number[], experts: number, blockSize: number) {
  const offsets = [0];
  const inverse = indices.map(() => -1);
  const order: number[] = [];
  for (let e = 0; e < experts; e++) {
    indices.forEach((expert, route) => {
      if (expert !== e) return;
      inverse[route] = order.length;
      order.push(route);
    });
    while (order.length % blockSize !== 0) order.push(-1);
    offsets.push(order.length);
  }
  return { offsets, inverse, order };
}

/** How far actual is from expected, in units of bound * magnitude (and a tiny absolute one). */
export function worstOf(
  actual: ArrayLike<number>,
  expected: Rows,
  magnitudes: Rows,
  bound: number,
): number {
  let worst = 0;
  const flat = expected.flat();
  const scales = magnitudes.flat();
  if (actual.length !== flat.length) return Number.POSITIVE_INFINITY;
  flat.forEach((value, i) => {
    if (Number.isNaN(value) && Number.isNaN(actual[i])) return;
    const error = Math.abs((actual[i] as number) - value);
    const ratio = error === 0 ? 0 : error / (bound * (scales[i] as number) + 1e-37);
    if (!(ratio <= worst)) worst = Number.isNaN(ratio) ? Number.POSITIVE_INFINITY : ratio;
  });
  return worst;
}
