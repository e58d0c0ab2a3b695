/**
 * The assignment of columns to rows of the highest sum (Kuhn 1955; the O(n^3) form with potentials and shortest augmenting
 * paths, Jonker and Volgenant 1987).
 *
 * @param gain [n, n], finite
 * @returns column of each row
 */
export function bestAssignment(gain: ArrayLike<number>, n: number): number[] {
  // Numbers from 1 on; 0 is the row or column that stands for none.
  const rowPotential = new Float64Array(n + 1);
  const columnPotential = new Float64Array(n + 1);
  const rowOf = new Int32Array(n + 1);
  const before = new Int32Array(n + 1);
  for (let row = 1; row <= n; row++) {
    rowOf[0] = row;
    let column = 0;
    const slack = new Float64Array(n + 1).fill(Number.POSITIVE_INFINITY);
    const done = new Uint8Array(n + 1);
    do {
      done[column] = 1;
      const own = rowOf[column] as number;
      let least = Number.POSITIVE_INFINITY;
      let next = 0;
      for (let c = 1; c <= n; c++) {
        if (done[c]) continue;
        const cost =
          -(gain[(own - 1) * n + c - 1] as number) -
          (rowPotential[own] as number) -
          (columnPotential[c] as number);
        if (cost < (slack[c] as number)) {
          slack[c] = cost;
          before[c] = column;
        }
        if ((slack[c] as number) < least) {
          least = slack[c] as number;
          next = c;
        }
      }
      for (let c = 0; c <= n; c++) {
        if (done[c]) {
          const r = rowOf[c] as number;
          rowPotential[r] = (rowPotential[r] as number) + least;
          columnPotential[c] = (columnPotential[c] as number) - least;
        } else {
          slack[c] = (slack[c] as number) - least;
        }
      }
      column = next;
    } while (rowOf[column] !== 0);
    for (; column !== 0; column = before[column] as number) {
      rowOf[column] = rowOf[before[column] as number] as number;
    }
  }
  const result = new Array<number>(n).fill(0);
  for (let c = 1; c <= n; c++) result[(rowOf[c] as number) - 1] = c - 1;
  return result;
}
