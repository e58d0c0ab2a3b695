// What Elastic Cache and PrefixKV share: the same keys for all heads of a layer, importance over a prompt, a fixed place after it.
import { accumulate, checkPolicyOptions, type PolicyOptions, range, wholeOption } from './parts.js';
import type { CachePolicy, LayerView } from './policy.js';
import { bestOf, overHeads, sameForAll } from './selections.js';

/** Options of {@link elasticCache} and {@link prefixKV}. */
export interface FixedPlaceOptions extends PolicyOptions {
  /** The newest tokens of a prompt's step that stay whatever their scores. Default 1, as in the papers; more where blocks are small. */
  window?: number;
  /** First tokens that stay. Default 4, budget / 4 at most. */
  sinks?: number;
  /** The newest keys that stay while a text is generated: what goes stands this far before the end. Default 25, budget / 2 at most. */
  distance?: number;
}

/** Parts of such a policy. */
type FixedPlaceParts = Pick<CachePolicy, 'budget' | 'sums' | 'observes' | 'score' | 'select'>;

/**
 * Importance of a key: the sum of its weights over all heads and queries of the prompt. After a prompt's step the first `sinks`, the
 * newest `window` and the most important of the others stay; while a text is generated, attention is not looked at, and what goes
 * stands `distance` before the end.
 */
export function fixedPlace(
  name: string,
  options: FixedPlaceOptions,
): { parts: FixedPlaceParts; window: number; sinks: number } {
  checkPolicyOptions(name, options, 'window', 'sinks', 'distance');
  const budget = wholeOption(name, 'budget', options.budget, 2);
  const window = wholeOption(name, 'window', options.window ?? 1, 1);
  const sinks = wholeOption(name, 'sinks', options.sinks ?? Math.min(4, budget >> 2), 0);
  const distance = wholeOption(name, 'distance', options.distance ?? Math.min(25, budget >> 1), 1);
  const parts: FixedPlaceParts = {
    budget,
    sums: ['sums'],
    observes: (count) => (count > 1 ? count : 0),
    score: accumulate(),
    select: (view, count) =>
      sameForAll(
        view,
        view.added > 1
          ? bestOf(overHeads(view), view.keys, count, window, sinks)
          : firstAndLast(view, count, distance),
      ),
  };
  return { parts, window, sinks };
}

/** The first keys and the last `distance`. */
function firstAndLast({ keys }: LayerView, count: number, distance: number): Int32Array {
  const newest = Math.min(distance, count);
  return Int32Array.from([...range(0, count - newest), ...range(keys - newest, keys)]);
}
