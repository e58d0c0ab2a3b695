import { type FixedPlaceOptions, fixedPlace } from './fixed_place.js';
import { mergeRows } from './merges.js';
import { policy } from './parts.js';
import type { CachePolicy } from './policy.js';
import { goingOf } from './selections.js';

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
 *
 * @param options `budget`; `sinks` (default 4, budget / 4 at most), `window` (1), `distance` (25, budget / 2 at most)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for a `budget` below 2, `sinks` below 0, a
 *   `window` or `distance` below 1
 *
 * @example
 * ```ts
 * import { elasticCache, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: elasticCache({ budget: 512, window: 8 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function elasticCache(options: FixedPlaceOptions): CachePolicy {
  const name = 'elasticCache';
  return policy({
    name,
    ...fixedPlace(name, options).parts,
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
