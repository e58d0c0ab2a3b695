// Scores of keys from attention weights.
import type { Observation } from './policy.js';

/** Calls `add(head, query, row)` with the weights [keys] of each row that was observed. */
function forEachRow(
  { probabilities, queries, keys }: Observation,
  add: (head: number, query: number, row: Float32Array) => void,
): void {
  const data = probabilities.data as Float32Array;
  const heads = probabilities.shape[0] as number;
  for (let head = 0; head < heads; head++) {
    for (let query = 0; query < queries; query++) {
      const at = (head * queries + query) * keys;
      add(head, query, data.subarray(at, at + keys));
    }
  }
}

/** Sum over queries and the heads of a kv head of f(weight), default the weight: [numKvHeads][keys]. */
export function columnSums(
  observation: Observation,
  numKvHeads: number,
  f?: (weight: number) => number,
): Float32Array[] {
  const { keys, probabilities } = observation;
  const group = (probabilities.shape[0] as number) / numKvHeads;
  const sums = Array.from({ length: numKvHeads }, () => new Float32Array(keys));
  forEachRow(observation, (head, _query, row) => {
    addTo(sums[Math.floor(head / group)] as Float32Array, row, f);
  });
  return sums;
}

/** Sum over queries and the given heads (default: all) of the weights, [keys]. */
export function headSums(observation: Observation, heads?: readonly number[]): Float32Array {
  const sum = new Float32Array(observation.keys);
  const wanted = heads === undefined ? undefined : new Set(heads);
  forEachRow(observation, (head, _query, row) => {
    if (wanted === undefined || wanted.has(head)) addTo(sum, row);
  });
  return sum;
}

/** {@link columnSums} of the last `count` of the queries. */
export function lastQueries(
  observation: Observation,
  count: number,
  numKvHeads: number,
): Float32Array[] {
  const { keys, queries, probabilities } = observation;
  const group = (probabilities.shape[0] as number) / numKvHeads;
  const sums = Array.from({ length: numKvHeads }, () => new Float32Array(keys));
  forEachRow(observation, (head, query, row) => {
    if (query >= queries - count) addTo(sums[Math.floor(head / group)] as Float32Array, row);
  });
  return sums;
}

/** Largest weight over queries and the heads of a kv head, [numKvHeads][keys]. */
export function columnMaxima(observation: Observation, numKvHeads: number): Float32Array[] {
  const group = (observation.probabilities.shape[0] as number) / numKvHeads;
  const most = Array.from({ length: numKvHeads }, () => new Float32Array(observation.keys));
  forEachRow(observation, (head, _query, row) => {
    const largest = most[Math.floor(head / group)] as Float32Array;
    for (let s = 0; s < row.length; s++) {
      if ((row[s] as number) > (largest[s] as number)) largest[s] = row[s] as number;
    }
  });
  return most;
}

// A loop without a call for each weight: the weights of a step are millions.
function addTo(sum: Float32Array, row: Float32Array, f?: (weight: number) => number): void {
  const { length } = sum;
  if (f === undefined) {
    for (let s = 0; s < length; s++) sum[s] = (sum[s] as number) + (row[s] as number);
  } else {
    for (let s = 0; s < length; s++) sum[s] = (sum[s] as number) + f(row[s] as number);
  }
}

/** Entropy of a row's weights, averaged over all rows; and the mean over keys of the variance over queries. */
export function dispersion(observation: Observation): { entropy: number; variance: number } {
  const { keys, queries } = observation;
  const heads = observation.probabilities.shape[0] as number;
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

/** The `count` indices below `end` with the highest scores, in rising order; earlier ones among equals. */
export function topIndices(scores: Float32Array, count: number, end = scores.length): number[] {
  const order = Array.from({ length: end }, (_, i) => i);
  order.sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);
  return order.slice(0, count).sort((a, b) => a - b);
}
