import { cappedShares } from './budgets.js';
import { type ProbeOptions, probeOf } from './citrus.js';
import { checkLayers } from './compress_kv.js';
import { checkPolicyOptions, listOption, policy, realOption, smallWindowOf } from './parts.js';
import type { CachePolicy } from './policy.js';
import { columnMaxima } from './scores.js';
import { bestAndNewest } from './selections.js';

/** Options of {@link epiCache}. */
export interface EpiCacheOptions extends ProbeOptions {
  /** Token ids that stand for the episode: the segment nearest to its center (`clusterEpisodes`). */
  patch: readonly number[];
  /** By layer: how little keys change under eviction, mean cosine of keys with and without it (`keySimilarity`). Default: alike. */
  similarity?: readonly number[];
  /** How much layers differ. Default 1. */
  alpha?: number;
}

/**
 * EpiCache (Kim et al. 2025, arXiv:2509.17396) for one episode: the text is read in blocks, and keys are evicted after each, so that there are
 * never more than the budget, a block and the patch. After each block the patch is computed behind it, and decides: score of a key = the
 * largest weight over the patch's queries and the heads of a kv head. The newest `window` tokens stay as well. Layers share the budget by
 * `(1 - similarity)^alpha`.
 *
 * Several episodes of one conversation, each with a cache of its own, are an {@link EpisodicCache}.
 *
 * @param options `budget`, `patch`; `window` (default 8, budget / 4 at most), `block` (256), `similarity` (layers alike), `alpha` (1)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, a `patch` that is no list of token ids or a `similarity` that
 *   is no list, `BL_OUT_OF_RANGE` for a `budget` below 2, a `window` that is not 1 to `budget - 1`, a `block` below 1, an `alpha` below 0
 *   or a similarity that is not -1 to 1; `BL_INVALID_SHAPE` once used, for a `similarity` of another length than the model has layers
 *
 * @example
 * ```ts
 * import { epiCache, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const question = decoder.tokenizer?.encode('Who was at the door?', { addBos: false }) ?? [];
 * const cache = { policy: epiCache({ budget: 512, patch: question }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function epiCache(options: EpiCacheOptions): CachePolicy {
  const name = 'epiCache';
  checkPolicyOptions(name, options, 'window', 'block', 'patch', 'similarity', 'alpha');
  const { budget, similarity } = options;
  const window = smallWindowOf(name, options);
  const alpha = realOption(name, 'alpha', options.alpha ?? 1, 0);
  for (const value of listOption(name, 'similarity', similarity ?? [])) {
    realOption(name, 'similarity', value, -1, 1);
  }
  return policy({
    name,
    budget,
    ...probeOf(name, 'patch', options.patch, options.block),
    observes: (count) => (count === 1 ? 1 : 0),
    score: (before, observation) =>
      observation === undefined ? [...before] : columnMaxima(observation, before.length),
    budgets: (layers) => {
      checkLayers(name, 'similarity', similarity?.length, layers.length);
      if (similarity === undefined) return layers.map(() => budget);
      const weights = similarity.map((value) => Math.max(0, 1 - value) ** alpha);
      const most = layers.map(({ keys }) => keys);
      return cappedShares(budget, window, weights, most);
    },
    select: (view, count) => bestAndNewest(view, count, window),
  });
}
