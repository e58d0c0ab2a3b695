import { prefixBudgets } from './budgets.js';
import { fixedPoint } from './elastic_cache.js';
import { accumulate, type PolicyOptions, policy, wholeOption } from './parts.js';
import type { CachePolicy } from './policy.js';
import { bestOf, overHeads, sameForAll } from './selections.js';

/** Options of {@link prefixKV}. */
export interface PrefixKVOptions extends PolicyOptions {
  /** The newest tokens of a prompt's step that stay whatever their scores. Default 1, as in the paper; more where blocks are small. */
  window?: number;
  /** First tokens that stay. Default 4, budget / 4 at most. */
  sinks?: number;
  /** Keys that stay at the end while a text is generated: what goes stands this far before the end. Default 25, budget / 2 at most. */
  distance?: number;
}

/**
 * PrefixKV (Wang et al. 2024, arXiv:2412.03409): layers keep the same share of importance, not of keys. Importance of a key = sum of its
 * weights over all heads and queries; sorted, `C_l(n)` is the share that the first n keys of layer l have. A binary search finds the largest
 * p such that the shortest prefixes with `C_l(n_l) >= p` have budget * layers keys together; layer l keeps its n_l most important
 * keys. The search is done whenever a prompt step exceeds the budget, over the keys besides the first `sinks` and the last one (`window`), which
 * stay anyway; while a text is generated, lengths stay as they are and keys go at a fixed place, `distance` before the end.
 *
 * It takes image and text tokens alike, as the paper does.
 */
export function prefixKV(options: PrefixKVOptions): CachePolicy {
  const name = 'prefixKV';
  const budget = wholeOption(name, 'budget', options.budget, 2);
  const window = wholeOption(name, 'window', options.window ?? 1, 1);
  const sinks = wholeOption(name, 'sinks', options.sinks ?? Math.min(4, budget >> 2), 0);
  const distance = wholeOption(name, 'distance', options.distance ?? Math.min(25, budget >> 1), 1);
  const protectedKeys = Math.min(sinks + window, budget);
  let lengths: number[] | undefined;
  return policy({
    name,
    budget,
    sums: ['sums'],
    observes: (count) => (count > 1 ? count : 0),
    score: accumulate(),
    budgets: (layers) => {
      const isPrompt = (layers[0]?.added ?? 0) > 1;
      if (lengths !== undefined && !isPrompt) return lengths;
      const importance = layers.map((view) => overHeads(view).slice(sinks, view.keys - window));
      const free = (budget - protectedKeys) * layers.length;
      lengths = prefixBudgets(importance, free).map((length) => length + protectedKeys);
      return lengths;
    },
    select: (view, count) =>
      sameForAll(
        view,
        view.added > 1
          ? bestOf(overHeads(view), view.keys, count, window, sinks)
          : fixedPoint(view, count, distance),
      ),
  });
}
