// Scores of keys from attention weights.
import { argumentError } from '../../errors.js';
import type { Observation } from './policy.js';

/** Calls `add(head, query, row)` with the weights [keys] of each row that was observed. */
function forEachRow(
  { probabilities, numHeads, queries, keys }: Observation,
  add: (head: number, query: number, row: Float32Array) => void,
): void {
  if (probabilities === undefined) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      'policy: the weights are looked at, expected a policy without `sums`',
    );
  }
  const data = probabilities.data as Float32Array;
  for (let head = 0; head < numHeads; head++) {
    for (let query = 0; query < queries; query++) {
      const at = (head * queries + query) * keys;
      add(head, query, data.subarray(at, at + keys));
    }
  }
}

/** `add` for each row of the weights, into a list for each kv head: [numKvHeads][keys]. */
function byColumn(
  observation: Observation,
  numKvHeads: number,
  add: (into: Float32Array, row: Float32Array, query: number) => void,
): Float32Array[] {
  const { keys, numHeads } = observation;
  const group = numHeads / numKvHeads;
  const columns = Array.from({ length: numKvHeads }, () => new Float32Array(keys));
  forEachRow(observation, (head, query, row) => {
    add(columns[Math.floor(head / group)] as Float32Array, row, query);
  });
  return columns;
}

/** Sum of the weights over queries and the heads of a kv head: [numKvHeads][keys]. */
export function columnSums(observation: Observation, numKvHeads: number): Float32Array[] {
  const { sums } = observation;
  if (sums !== undefined) return byKvHead(observation, sums, numKvHeads);
  return byColumn(observation, numKvHeads, addTo);
}

/** {@link columnSums} of the weights' squares. */
export function columnSquares(observation: Observation, numKvHeads: number): Float32Array[] {
  const { squares } = observation;
  if (squares !== undefined) return byKvHead(observation, squares, numKvHeads);
  return byColumn(observation, numKvHeads, (into, row) => {
    for (let s = 0; s < into.length; s++) into[s] = (into[s] as number) + (row[s] as number) ** 2;
  });
}

/** How many of the weights are above `threshold`, over queries and the heads of a kv head: [numKvHeads][keys]. */
export function columnCounts(
  observation: Observation,
  numKvHeads: number,
  threshold: number,
): Float32Array[] {
  return byColumn(observation, numKvHeads, (into, row) => {
    for (let s = 0; s < into.length; s++) {
      if ((row[s] as number) > threshold) into[s] = (into[s] as number) + 1;
    }
  });
}

/** Rows [numHeads][keys] summed over the heads of each kv head. */
function byKvHead(
  { keys, numHeads }: Observation,
  rows: Float32Array,
  numKvHeads: number,
): Float32Array[] {
  const group = numHeads / numKvHeads;
  const sums = Array.from({ length: numKvHeads }, () => new Float32Array(keys));
  for (let head = 0; head < numHeads; head++) {
    addTo(
      sums[Math.floor(head / group)] as Float32Array,
      rows.subarray(head * keys, (head + 1) * keys),
    );
  }
  return sums;
}

/** Sum over queries and the given heads (default: all) of the weights, [keys]. */
export function headSums(observation: Observation, heads?: readonly number[]): Float32Array {
  const { keys, numHeads, sums } = observation;
  const sum = new Float32Array(keys);
  const wanted = heads === undefined ? undefined : new Set(heads);
  const isWanted = (head: number): boolean => wanted === undefined || wanted.has(head);
  if (sums === undefined) {
    forEachRow(observation, (head, _query, row) => {
      if (isWanted(head)) addTo(sum, row);
    });
    return sum;
  }
  for (let head = 0; head < numHeads; head++) {
    if (isWanted(head)) addTo(sum, sums.subarray(head * keys, (head + 1) * keys));
  }
  return sum;
}

/** {@link columnSums} of the last `count` of the queries; those of a policy with `latest` are summed already. */
export function lastQueries(
  observation: Observation,
  count: number,
  numKvHeads: number,
): Float32Array[] {
  const { latest, queries } = observation;
  if (latest !== undefined) return byKvHead(observation, latest, numKvHeads);
  return byColumn(observation, numKvHeads, (into, row, query) => {
    if (query >= queries - count) addTo(into, row);
  });
}

/** Largest weight over queries and the heads of a kv head, [numKvHeads][keys]. */
export function columnMaxima(observation: Observation, numKvHeads: number): Float32Array[] {
  return byColumn(observation, numKvHeads, (into, row) => {
    for (let s = 0; s < into.length; s++) {
      if ((row[s] as number) > (into[s] as number)) into[s] = row[s] as number;
    }
  });
}

// A loop without a call for each weight: the weights of a step are millions.
function addTo(sum: Float32Array, row: Float32Array): void {
  for (let s = 0; s < sum.length; s++) sum[s] = (sum[s] as number) + (row[s] as number);
}

/** Entropy of a row's weights, averaged over all rows; and the mean over keys of the variance over queries. */
export function dispersion(observation: Observation): { entropy: number; variance: number } {
  const { keys, queries, numHeads: heads } = observation;
  if (observation.entropy !== undefined && observation.variance !== undefined) {
    const mean = (values: Float32Array): number => values.reduce((a, b) => a + b, 0) / heads;
    return { entropy: mean(observation.entropy), variance: mean(observation.variance) };
  }
  let entropy = 0;
  let variance = 0;
  let sum = new Float64Array(keys);
  let squares = new Float64Array(keys);
  forEachRow(observation, (_head, query, row) => {
    if (query === 0) {
      sum = new Float64Array(keys);
      squares = new Float64Array(keys);
    }
    for (let s = 0; s < keys; s++) {
      const p = row[s] as number;
      if (p > 0) entropy -= p * Math.log(p);
      sum[s] = (sum[s] as number) + p;
      squares[s] = (squares[s] as number) + p * p;
    }
    if (query < queries - 1) return;
    for (let s = 0; s < keys; s++) {
      const mean = (sum[s] as number) / queries;
      variance += ((squares[s] as number) / queries - mean * mean) / keys;
    }
  });
  return { entropy: entropy / (heads * queries), variance: variance / heads };
}

/** Largest of each `size` neighbours (odd), which keeps the surroundings of what is looked at (SnapKV). */
export function maxPool(scores: Float32Array, size: number): Float32Array {
  const half = (size - 1) / 2;
  return scores.map((_, i) => {
    let largest = Number.NEGATIVE_INFINITY;
    const end = Math.min(scores.length - 1, i + half);
    for (let j = Math.max(0, i - half); j <= end; j++) {
      largest = Math.max(largest, scores[j] as number);
    }
    return largest;
  });
}

/** Mean of each `size` neighbours (odd); beyond the ends there are zeros. */
export function meanPool(scores: Float32Array, size: number): Float32Array {
  const half = (size - 1) / 2;
  return scores.map((_, i) => {
    let sum = 0;
    const end = Math.min(scores.length - 1, i + half);
    for (let j = Math.max(0, i - half); j <= end; j++) sum += scores[j] as number;
    return sum / size;
  });
}

/** The `count` indices below `end` with the highest scores, in rising order; earlier ones among equals; NaN counts as lowest. */
export function topIndices(scores: Float32Array, count: number, end = scores.length): number[] {
  const values = scores.slice(0, end);
  for (let i = 0; i < end; i++) {
    if (Number.isNaN(values[i])) values[i] = Number.NEGATIVE_INFINITY;
  }
  if (count <= 0) return [];
  // Sorting numbers without a function takes a tenth of the time: the last one that is taken, then those above it.
  const last = values.slice().sort()[Math.max(end - count, 0)] as number;
  let equal = count;
  for (const value of values) if (value > last) equal--;
  const top: number[] = [];
  for (let i = 0; i < end; i++) {
    const value = values[i] as number;
    if (value > last || (value === last && equal-- > 0)) top.push(i);
  }
  return top;
}

/** Cosine of two vectors; 0 where one has no length. */
export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `cosine: vectors of ${a.length} and ${b.length}, expected the same length`,
    );
  }
  let [product, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    product += (a[i] as number) * (b[i] as number);
    aa += (a[i] as number) ** 2;
    bb += (b[i] as number) ** 2;
  }
  return aa > 0 && bb > 0 ? product / Math.sqrt(aa * bb) : 0;
}
