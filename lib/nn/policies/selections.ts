// Which keys stay, given scores and how many.
import { range } from './parts.js';
import type { LayerView } from './policy.js';
import { topIndices } from './scores.js';

/** The best `count - window` of the older keys, and the newest `window`. */
export function bestAndNewest(view: LayerView, count: number, window: number): Int32Array[] {
  return view.scores.map((scores) => bestOf(scores, view.keys, count, window, 0));
}

/** The same for one list of scores, with the first `sinks` keys as well. */
export function bestOf(
  scores: Float32Array,
  keys: number,
  count: number,
  window: number,
  sinks: number,
): Int32Array {
  const newest = Math.min(window, count);
  const first = Math.min(sinks, count - newest);
  const older = scores.subarray(first, keys - newest);
  const best = topIndices(older, count - newest - first).map((i) => i + first);
  return Int32Array.from([...range(0, first), ...best, ...range(keys - newest, keys)]);
}

/** One choice for all heads. */
export const sameForAll = ({ numKvHeads }: LayerView, kept: Int32Array): Int32Array[] =>
  Array.from({ length: numKvHeads }, () => kept);

/** Scores of a layer: the sum over its heads, [keys]. */
export function overHeads({ keys, scores }: LayerView): Float32Array {
  const sum = new Float32Array(keys);
  for (const head of scores) {
    for (let s = 0; s < keys; s++) sum[s] = (sum[s] as number) + (head[s] as number);
  }
  return sum;
}

/** Indices below `keys` that are not in `kept` (rising), rising. */
export function goingOf(kept: Int32Array, keys: number): Int32Array {
  const going = new Int32Array(keys - kept.length);
  let at = 0;
  let next = 0;
  for (let s = 0; s < keys; s++) {
    if (kept[next] === s) next++;
    else going[at++] = s;
  }
  return going;
}
