import { mergeRows, nearestKept } from './merges.js';
import {
  accumulate,
  checkPolicyOptions,
  choiceOption,
  policy,
  type PositionRange,
  rangesOf,
  windowOf,
  type WindowOptions,
} from './parts.js';
import type { CachePolicy } from './policy.js';
import { bestAndNewest } from './selections.js';

/** Options of {@link lookM}. */
export interface LookMOptions extends WindowOptions {
  /** Positions of image tokens. Default: none, all is text. */
  images?: readonly PositionRange[];
  /** What goes to its nearest kept key: see {@link lookM}. Default `'pivotal'`. */
  merge?: 'average' | 'pivotal' | 'weighted' | 'none';
}

/** Whether a position lies in one of the ranges. */
export const isIn = (ranges: readonly PositionRange[], position: number): boolean =>
  ranges.some(([begin, end]) => position >= begin && position < end);

/**
 * LOOK-M (Wan et al. 2024, arXiv:2406.18139): text before images. Score = sum of the weights of all queries; text keys get the largest
 * score of the head on top, so that images go first. The best older keys and the newest `window` stay. The n keys k_i that go and
 * have the same nearest kept key k (by cosine) are merged into it, keys and values by the keys' choice:
 *
 * - average: `(k + sum of k_i) / (n + 1)`
 * - pivotal: `(k + sum of (k + k_i) / 2) / (n + 1)`
 * - weighted: `(k + sum of cos(k, k_i) k_i) / (n + 1)`
 *
 * Without images all keys get the same on top, and it is H2O with a merge.
 *
 * @param options `budget`; `window` (default budget / 2), `images` (none), `merge` ('pivotal')
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `images` that are no list or another `merge`, `BL_OUT_OF_RANGE`
 *   for a `budget` below 2, a `window` that is not 1 to `budget - 1`, or images that are empty, overlap or do not rise
 *
 * @example
 * ```ts
 * import { load, lookM } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: lookM({ budget: 512, images: [[4, 100]] }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function lookM(options: LookMOptions): CachePolicy {
  const name = 'lookM';
  checkPolicyOptions(name, options, 'window', 'images', 'merge');
  const { budget } = options;
  const window = windowOf(name, options, (all) => Math.floor(all / 2));
  const images = rangesOf(name, 'images', options.images);
  const how = choiceOption(name, 'merge', options.merge ?? 'pivotal', [
    'average',
    'pivotal',
    'weighted',
    'none',
  ]);
  return policy({
    name,
    budget,
    sums: ['sums'],
    observes: (count) => count,
    score: accumulate(),
    select: (view, count) => {
      const scores = view.scores.map((list, head) =>
        textPrior(list, view.positions[head] as Int32Array, images),
      );
      return bestAndNewest({ ...view, scores }, count, window);
    },
    ...(how === 'none'
      ? {}
      : {
          merge: (view, kept, content) => {
            const { going, target, similarity } = nearestKept(view, kept, content);
            for (const [head, from] of going.entries()) {
              const cosines = similarity[head] as Float32Array;
              const finite = [...from.keys()].filter((i) => !Number.isNaN(cosines[i]));
              const rows = finite.map((i) => from[i] as number);
              const to = finite.map(
                (i) => (kept[head] as Int32Array)[target[head]?.[i] as number] as number,
              );
              const weights = finite.map((i) => cosines[i] as number);
              mergeRows(content, head, lookMWeights(how, rows, to, weights));
            }
          },
        }),
  });
}

/** Scores with the largest one added to those of text. */
function textPrior(
  scores: Float32Array,
  positions: Int32Array,
  images: readonly PositionRange[],
): Float32Array {
  if (images.length === 0) return scores;
  const largest = scores.reduce((a, b) => Math.max(a, b), 0);
  return scores.map((score, s) => (isIn(images, positions[s] as number) ? score : score + largest));
}

function lookMWeights(
  how: 'average' | 'pivotal' | 'weighted',
  from: readonly number[],
  to: readonly number[],
  similarity: readonly number[],
) {
  const counts = new Map<number, number>();
  for (const row of to) counts.set(row, (counts.get(row) ?? 0) + 1);
  const own = new Map<number, number>();
  for (const [row, n] of counts) {
    // Half of each merged pair is the pivot itself.
    own.set(row, how === 'pivotal' ? (1 + n / 2) / (n + 1) : 1 / (n + 1));
  }
  const weights = to.map((row, i) => {
    const share = 1 / ((counts.get(row) as number) + 1);
    if (how === 'average') return share;
    return how === 'pivotal' ? share / 2 : share * (similarity[i] as number);
  });
  return { from, to, weights, own };
}
