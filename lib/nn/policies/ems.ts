import { mergeDirections, mergeRowsOf, nearestKept, normalizedMerge, rowCosine } from './merges.js';
import {
  checkPolicyOptions,
  perCache,
  policy,
  realOption,
  windowOf,
  type WindowOptions,
} from './parts.js';
import type { CachePolicy } from './policy.js';
import { columnSums, lastQueries, topIndices } from './scores.js';
import { bestAndNewest, goingOf } from './selections.js';

/** Options of {@link ems}. */
export interface EMSOptions extends WindowOptions {
  /** Keys that may be merged, as a multiple of those that stay; the rest is evicted. Default 1. */
  mergeable?: number;
  /** Redundancy below which a mergeable key falls to the zero class. Default 0.6. */
  threshold?: number;
}

/**
 * EMS (Li et al. 2024, arXiv:2412.08521): evict, then merge, head by head.
 *
 * - Score: `max(G, L)`, where L are the mean weights at the last `window` queries and G the mean weights over all queries that could see
 *   the key, each divided by its mean over keys: sums over all queries alone favour early keys, those of the last ones late keys.
 * - Sparsity: of the keys that do not stay, all but the best `mergeable * budget` are evicted.
 * - Redundancy: each of these goes to the key that stays and is most alike by cosine, if the pair's `cos(keys) * cos(values)` is at least
 *   `threshold` (and both are positive); else to the zero class: a center of zeros that every head has, so that heads do the
 *   same work whatever they merge, and that is dropped afterwards.
 * - A center becomes the mean of itself and what came to it, weighted by scores; keys by direction and length apart: the mean direction, as
 *   long as the mean length.
 *
 * The paper's, by its abstract and what others write of it: the two scores with their means aligned, three classes of keys (important, to be
 * merged, irrelevant), redundancy as the product of both cosines, attention weights in the merge, lengths of keys apart from their directions,
 * the zero class. Ours, since its formulas could not be read and its code is not public: max of the two scores, G's division by the
 * queries that see a key, that centers are the nearest by keys alone, the mean of lengths, both defaults; and that keys are compared as they
 * stand in the cache, rotated.
 *
 * @param options `budget`; `window` (default 32, budget / 2 at most), `mergeable` (1), `threshold` (0.6)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for a `budget` below 2, a `window` that is
 *   not 1 to `budget - 1`, a `mergeable` below 0 or a `threshold` that is not 0 to 1
 *
 * @example
 * ```ts
 * import { ems, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: ems({ budget: 512 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function ems(options: EMSOptions): CachePolicy {
  const name = 'ems';
  checkPolicyOptions(name, options, 'window', 'mergeable', 'threshold');
  const { budget } = options;
  const window = windowOf(name, options);
  const mergeable = realOption(name, 'mergeable', options.mergeable ?? 1, 0);
  const threshold = realOption(name, 'threshold', options.threshold ?? 0.6, 0, 1);
  /** By layer: sums over all queries of each head's keys, where these stand, and how many tokens have been looked at. */
  type Sums = { positions: Int32Array[]; sum: Float32Array[]; seen: number };
  const memory = perCache(() => new Map<number, Sums>());
  return policy({
    name,
    budget,
    sums: ['sums'],
    latest: window,
    observes: (count) => count,
    score: (before, observation, { layer, positions, cache }) => {
      if (observation === undefined) return [...before];
      const sums = memory({ cache });
      const old = sums.get(layer);
      const now = columnSums(observation, before.length);
      const last = lastQueries(observation, window, before.length);
      const seen = (old?.seen ?? 0) + observation.queries;
      const sum = positions.map((list, head) => {
        const carried = carry(old?.positions[head], old?.sum[head], list);
        return carried.map((value, s) => value + (now[head]?.[s] as number));
      });
      sums.set(layer, { positions: [...positions], sum, seen });
      return positions.map((list, head) => {
        const global = Float32Array.from(
          list,
          (position, s) => (sum[head]?.[s] as number) / Math.max(1, seen - position),
        );
        return globalLocal(global, last[head] as Float32Array);
      });
    },
    select: (view, count) => bestAndNewest(view, count, window),
    merge: (view, kept, content) => {
      const going = kept.map((list, head) => {
        const all = goingOf(list, view.keys);
        const scores = Float32Array.from(all, (s) => view.scores[head]?.[s] as number);
        const most = Math.min(Math.floor(mergeable * list.length), all.length);
        return Int32Array.from(topIndices(scores, most), (i) => all[i] as number);
      });
      const { target, similarity } = nearestKept(view, kept, content, going);
      for (const [head, from] of going.entries()) {
        const scores = view.scores[head] as Float32Array;
        const centerOf = (i: number): number =>
          (kept[head] as Int32Array)[target[head]?.[i] as number] as number;
        const classed = [...from.keys()].filter((i) => {
          const ofKeys = similarity[head]?.[i] as number;
          if (!(ofKeys > 0)) return false;
          const ofValues = rowCosine(content.values, head, from[i] as number, centerOf(i));
          return ofValues > 0 && ofKeys * ofValues >= threshold;
        });
        const rows = classed.map((i) => from[i] as number);
        const centers = classed.map(centerOf);
        const merged = normalizedMerge(
          rows,
          centers,
          rows.map((row) => scores[row] as number),
          (row) => scores[row] as number,
        );
        mergeDirections(content.keys, head, merged);
        mergeRowsOf(content.values, head, merged);
      }
    },
  });
}

/** Values of keys by where they stand (rising) now: those of before, 0 for keys that are new. */
export function carry(
  before: Int32Array | undefined,
  values: Float32Array | undefined,
  positions: Int32Array,
): Float32Array {
  const carried = new Float32Array(positions.length);
  if (before === undefined || values === undefined) return carried;
  let at = 0;
  for (let s = 0; s < positions.length; s++) {
    while (at < before.length && (before[at] as number) < (positions[s] as number)) at++;
    if (before[at] === positions[s]) carried[s] = values[at] as number;
  }
  return carried;
}

/** The larger of two scores of each key, once both sum to 1, so that their means are the same. */
export function globalLocal(global: Float32Array, local: Float32Array): Float32Array {
  const total = (list: Float32Array): number => list.reduce((a, b) => a + b, 0) || 1;
  const [all, last] = [total(global), total(local)];
  return global.map((value, s) => Math.max(value / all, (local[s] as number) / last));
}
