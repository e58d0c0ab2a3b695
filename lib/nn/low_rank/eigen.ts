/** Eigenvalues of a symmetric matrix, falling, and its eigenvectors, one a row. */
export interface Eigen {
  readonly values: Float64Array;
  readonly vectors: readonly Float64Array[];
}

/**
 * Eigenvalues and eigenvectors of a real symmetric matrix in float64: Householder reflections to tridiagonal form, then QL
 * steps with implicit shifts (Golub and Van Loan, Matrix Computations, 8.3). About 3 n^3 multiplications.
 *
 * @param rows n rows of n; not changed
 */
export function symmetricEigen(rows: readonly Float64Array[]): Eigen {
  const n = rows.length;
  const a = rows.map((row) => Float64Array.from(row));
  // Row i: what is to become eigenvector i.
  const vectors = Array.from({ length: n }, (_, i) => {
    const row = new Float64Array(n);
    row[i] = 1;
    return row;
  });
  const beta = tridiagonalize(a, vectors);
  const diagonal = Float64Array.from({ length: n }, (_, i) => at(a, i, i));
  diagonalize(diagonal, beta, vectors);
  const order = [...diagonal.keys()].sort((i, j) => (diagonal[j] ?? 0) - (diagonal[i] ?? 0));
  return {
    values: Float64Array.from(order, (i) => diagonal[i] as number),
    vectors: order.map((i) => vectors[i] as Float64Array),
  };
}

const at = (a: readonly Float64Array[], i: number, j: number): number =>
  (a[i] as Float64Array)[j] as number;

const dot = (x: Float64Array, y: Float64Array, from: number): number => {
  let sum = 0;
  for (let i = from; i < x.length; i++) sum += (x[i] as number) * (y[i] as number);
  return sum;
};

const addTo = (x: Float64Array, y: Float64Array, factor: number, from: number): void => {
  for (let i = from; i < x.length; i++) x[i] = (x[i] as number) + factor * (y[i] as number);
};

/**
 * Column k is reflected by H = 1 - 2 v v^T / v^T v so that only its entry k + 1 is left below the diagonal; H a H has rank-2
 * form. Leaves the diagonal in `a`, Q^T in `vectors` (a = Q T Q^T), and returns what stands beside the diagonal.
 */
function tridiagonalize(a: Float64Array[], vectors: Float64Array[]): Float64Array {
  const n = a.length;
  const beside = new Float64Array(n);
  for (let k = 0; k + 1 < n; k++) {
    const v = new Float64Array(n);
    for (let i = k + 1; i < n; i++) v[i] = at(a, i, k);
    const norm = Math.sqrt(dot(v, v, k + 1));
    const first = v[k + 1] as number;
    beside[k] = first > 0 ? -norm : norm;
    v[k + 1] = first - (beside[k] as number);
    const square = dot(v, v, k + 1);
    if (square === 0) continue;
    // p = 2 a v / v^T v; w = p - (p^T v / v^T v) v; a -= v w^T + w v^T
    const p = new Float64Array(n);
    for (let i = k + 1; i < n; i++) p[i] = (2 / square) * dot(a[i] as Float64Array, v, k + 1);
    addTo(p, v, -dot(p, v, k + 1) / square, k + 1);
    for (let i = k + 1; i < n; i++) {
      const row = a[i] as Float64Array;
      addTo(row, p, -(v[i] as number), k + 1);
      addTo(row, v, -(p[i] as number), k + 1);
    }
    reflectRows(vectors, v, square, k + 1);
  }
  return beside;
}

/** vectors = H vectors: rows from `from` on are mixed. */
function reflectRows(rows: Float64Array[], v: Float64Array, square: number, from: number): void {
  const sum = new Float64Array(rows.length);
  for (let i = from; i < rows.length; i++) addTo(sum, rows[i] as Float64Array, v[i] as number, 0);
  for (let i = from; i < rows.length; i++) {
    addTo(rows[i] as Float64Array, sum, (-2 * (v[i] as number)) / square, 0);
  }
}

/** QL steps until what stands beside the diagonal is below its rounding. */
function diagonalize(d: Float64Array, e: Float64Array, vectors: Float64Array[]): void {
  const n = d.length;
  for (let low = 0; low < n; low++) {
    // Two or three steps a value; the bound only ends a loop that NaN would keep going.
    for (let step = 0; step < 60; step++) {
      let high = low;
      for (; high + 1 < n; high++) {
        const size = Math.abs(d[high] as number) + Math.abs(d[high + 1] as number);
        if (Math.abs(e[high] as number) <= 2 ** -53 * size) break;
      }
      if (high === low) break;
      stepQL(d, e, vectors, low, high);
    }
  }
}

/** One step on rows [low, high], shifted by the eigenvalue of the upper 2 x 2 corner that is nearer to its first entry. */
function stepQL(
  d: Float64Array,
  e: Float64Array,
  vectors: Float64Array[],
  low: number,
  high: number,
): void {
  const half = ((d[low + 1] as number) - (d[low] as number)) / (2 * (e[low] as number));
  const root = Math.hypot(half, 1);
  const shift = (d[low] as number) - (e[low] as number) / (half + (half < 0 ? -root : root));
  let g = (d[high] as number) - shift;
  let [sine, cosine, carried] = [1, 1, 0];
  for (let i = high - 1; i >= low; i--) {
    const f = sine * (e[i] as number);
    const b = cosine * (e[i] as number);
    const length = Math.hypot(f, g);
    e[i + 1] = length;
    if (length === 0) {
      // The matrix falls apart here: go on with its parts.
      d[i + 1] = (d[i + 1] as number) - carried;
      e[high] = 0;
      return;
    }
    sine = f / length;
    cosine = g / length;
    g = (d[i + 1] as number) - carried;
    const r = ((d[i] as number) - g) * sine + 2 * cosine * b;
    carried = sine * r;
    d[i + 1] = g + carried;
    g = cosine * r - b;
    rotateRows(vectors[i] as Float64Array, vectors[i + 1] as Float64Array, cosine, sine);
  }
  d[low] = (d[low] as number) - carried;
  e[low] = g;
  e[high] = 0;
}

function rotateRows(x: Float64Array, y: Float64Array, cosine: number, sine: number): void {
  for (let i = 0; i < x.length; i++) {
    const [a, b] = [x[i] as number, y[i] as number];
    y[i] = sine * a + cosine * b;
    x[i] = cosine * a - sine * b;
  }
}
