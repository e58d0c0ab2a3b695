import { mergeRows } from './merges.js';
import { accumulate, type PolicyOptions, policy, range, wholeOption } from './parts.js';
import type { CachePolicy, LayerView } from './policy.js';
import { bestOf, goingOf, overHeads, sameForAll } from './selections.js';

/** Options of {@link elasticCache}. */
export interface ElasticCacheOptions extends PolicyOptions {
  /** The newest tokens of a prompt's step that stay whatever their scores. Default 1, as in the paper; more where blocks are small. */
  window?: number;
  /** First tokens that stay. Default 4, budget / 4 at most. */
  sinks?: number;
  /** The newest keys that stay while a text is generated: what goes stands this far before the end. Default 25, budget / 2 at most. */
  distance?: number;
}

/**
 * Elastic Cache (Liu et al. 2024, arXiv:2407.18121), by layer, the same keys for all heads.
 *
 * - Prompt: anchors are the first `sinks` keys, the last one (`window`), and those with the largest sum of weights over all heads and queries; every
 *   other key is merged into the anchor nearest to it in the text: an anchor becomes the mean of its bucket, keys and values.
 * - Generation: keys go at a fixed place, `distance` before the end, whatever their weights; what stays are the instruction and
 *   the newest tokens.
 *
 * It takes image and text tokens alike, as the paper does. The first prompt step that exceeds the budget is the instruction; prompts
 * of several steps are compressed after each.
 */
export function elasticCache(options: ElasticCacheOptions): CachePolicy {
  const name = 'elasticCache';
  const budget = wholeOption(name, 'budget', options.budget, 2);
  const window = wholeOption(name, 'window', options.window ?? 1, 1);
  const sinks = wholeOption(name, 'sinks', options.sinks ?? Math.min(4, budget >> 2), 0);
  const distance = wholeOption(name, 'distance', options.distance ?? Math.min(25, budget >> 1), 1);
  return policy({
    name,
    budget,
    sums: ['sums'],
    observes: (count) => (count > 1 ? count : 0),
    score: accumulate(),
    select: (view, count) =>
      sameForAll(
        view,
        view.added > 1
          ? bestOf(overHeads(view), view.keys, count, window, sinks)
          : fixedPoint(view, count, distance),
      ),
    merge: (view, kept, content) => {
      if (view.added === 1) return;
      const anchors = kept[0] as Int32Array;
      const from = goingOf(anchors, view.keys);
      const to = Array.from(from, (row) => nearestInText(anchors, row));
      const sizes = new Map<number, number>();
      for (const row of to) sizes.set(row, (sizes.get(row) ?? 1) + 1);
      const own = new Map([...sizes].map(([row, size]) => [row, 1 / size]));
      const weights = to.map((row) => 1 / (sizes.get(row) as number));
      for (const head of kept.keys()) mergeRows(content, head, { from, to, weights, own });
    },
  });
}

/** The first keys and the last `distance`. */
export function fixedPoint({ keys }: LayerView, count: number, distance: number): Int32Array {
  const newest = Math.min(distance, count);
  return Int32Array.from([...range(0, count - newest), ...range(keys - newest, keys)]);
}

/** Of rising `anchors`, the one nearest to a row; the earlier of two. */
function nearestInText(anchors: Int32Array, row: number): number {
  let low = 0;
  let high = anchors.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((anchors[middle] as number) < row) low = middle + 1;
    else high = middle;
  }
  const [before, after] = [anchors[low - 1], anchors[low]];
  if (before === undefined) return after as number;
  return after === undefined || row - before <= after - row ? before : after;
}
