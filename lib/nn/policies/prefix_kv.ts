import { prefixBudgets } from './budgets.js';
import { type FixedPlaceOptions, fixedPlace } from './fixed_place.js';
import { perCache, policy } from './parts.js';
import type { CachePolicy, LayerView } from './policy.js';
import { overHeads } from './selections.js';

/**
 * PrefixKV (Wang et al. 2024, arXiv:2412.03409): layers keep the same share of importance, not of keys. Importance of a key = sum of its
 * weights over all heads and queries; sorted, `C_l(n)` is the share that the first n keys of layer l have. A binary search finds the largest
 * p such that the shortest prefixes with `C_l(n_l) >= p` have budget * layers keys together; layer l keeps its n_l most important
 * keys. The search is done whenever a prompt step exceeds the budget, over the keys besides the first `sinks` and the last one (`window`), which
 * stay anyway; while a text is generated, lengths stay as they are and keys go at a fixed place, `distance` before the end.
 *
 * It takes image and text tokens alike, as the paper does.
 *
 * @param options `budget`; `sinks` (default 4, budget / 4 at most), `window` (1), `distance` (25, budget / 2 at most)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for a `budget` below 2, `sinks` below 0, a
 *   `window` or `distance` below 1
 *
 * @example
 * ```ts
 * import { load, prefixKV } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: prefixKV({ budget: 512, window: 8 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function prefixKV(options: FixedPlaceOptions): CachePolicy {
  const name = 'prefixKV';
  const { parts, window, sinks } = fixedPlace(name, options);
  const { budget } = parts;
  const protectedKeys = Math.min(sinks + window, budget);
  const memory = perCache((): { lengths?: number[] } => ({}));
  return policy({
    name,
    ...parts,
    budgets: (layers) => {
      const first = layers[0] as LayerView;
      const known = memory(first);
      if (known.lengths !== undefined && first.added === 1) return known.lengths;
      const importance = layers.map((view) => overHeads(view).slice(sinks, view.keys - window));
      const free = (budget - protectedKeys) * layers.length;
      known.lengths = prefixBudgets(importance, free).map((length) => length + protectedKeys);
      return known.lengths;
    },
  });
}
