// Policies that score by attention alone and evict.
import { cappedShares } from './budgets.js';
import {
  accumulate,
  added,
  checkPolicyOptions,
  latest,
  latestPooled,
  type PolicyOptions,
  policy,
  poolOf,
  realOption,
  range,
  type SnapKVOptions,
  type WindowOptions,
  wholeOption,
  windowOf,
} from './parts.js';
import type { CachePolicy, LayerView } from './policy.js';
import { columnCounts } from './scores.js';
import { bestAndNewest } from './selections.js';

/** Options of {@link streamingLLM}. */
export interface StreamingLLMOptions extends PolicyOptions {
  /** First tokens that stay. Default 4. */
  sinks?: number;
}

/**
 * StreamingLLM (Xiao et al. 2024, arXiv:2309.17453): the first `sinks` tokens and the newest `budget - sinks` stay; attention is not looked
 * at. In the paper positions are those in the cache; here keys keep the rotation of the place where they stood.
 *
 * @param options `budget`; `sinks` (default 4, `budget - 1` at most)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for a number that is not whole, a
 *   `budget` below 1 or `sinks` below 0
 *
 * @example
 * ```ts
 * import { load, streamingLLM } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: streamingLLM({ budget: 256, sinks: 4 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function streamingLLM(options: StreamingLLMOptions): CachePolicy {
  const name = 'streamingLLM';
  checkPolicyOptions(name, options, 'sinks');
  const budget = wholeOption(name, 'budget', options.budget, 1);
  const sinks = wholeOption(name, 'sinks', options.sinks ?? Math.min(4, budget - 1), 0);
  return policy({
    name,
    budget,
    select: ({ keys, numKvHeads }, count) => {
      const first = Math.min(sinks, count);
      const kept = Int32Array.from([...range(0, first), ...range(keys - (count - first), keys)]);
      return range(0, numKvHeads).map(() => kept);
    },
  });
}

/**
 * H2O (Zhang et al. 2023, arXiv:2306.14048): score of a key = sum over all queries so far, and the heads of a kv head, of its weight; the best
 * `budget - window` older keys and the newest `window` stay.
 *
 * @param options `budget`; `window` (default budget / 2)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for a `budget` below 2 or a `window`
 *   that is not 1 to `budget - 1`
 *
 * @example
 * ```ts
 * import { h2o, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: h2o({ budget: 512 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function h2o(options: WindowOptions): CachePolicy {
  const name = 'h2o';
  checkPolicyOptions(name, options, 'window');
  const window = windowOf(name, options, (budget) => Math.floor(budget / 2));
  return policy({
    name,
    budget: options.budget,
    sums: ['sums'],
    observes: (count) => count,
    score: accumulate(),
    select: (view, count) => bestAndNewest(view, count, window),
  });
}

/**
 * Scissorhands (Liu et al. 2023, arXiv:2305.17118): score of a key = how often it had more than the average weight `1 / keys`, over the queries
 * that were observed (the last `4 window` of a step) and the heads of a kv head; the best older keys and the newest `window` stay. The paper
 * counts how often a key had less, and lets those with the most go, and gives layers budgets by how persistent their attention is; here
 * they are equal.
 *
 * @param options `budget`; `window` (default 32, budget / 2 at most)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for a `budget` below 2 or a `window`
 *   that is not 1 to `budget - 1`
 *
 * @example
 * ```ts
 * import { load, scissorhands } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: scissorhands({ budget: 512 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function scissorhands(options: WindowOptions): CachePolicy {
  const name = 'scissorhands';
  checkPolicyOptions(name, options, 'window');
  const window = windowOf(name, options);
  return policy({
    name,
    budget: options.budget,
    observes: (count) => Math.min(count, 4 * window),
    score: (before, observation) => {
      if (observation === undefined) return [...before];
      return added(before, columnCounts(observation, before.length, 1 / observation.keys));
    },
    select: (view, count) => bestAndNewest(view, count, window),
  });
}

/**
 * SnapKV (Li et al. 2024, arXiv:2404.14469): score of a key = sum of its weights over the last `window` queries and the heads of a kv head, the
 * largest of `pool` neighbours; the best `budget - window` older keys and the newest `window` stay.
 *
 * @param options `budget`; `window` (default 32, budget / 2 at most), `pool` (5)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for a `budget` below 2, a `window` that is
 *   not 1 to `budget - 1` or a `pool` that is not odd
 *
 * @example
 * ```ts
 * import { load, snapKV } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: snapKV({ budget: 512 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function snapKV(options: SnapKVOptions): CachePolicy {
  checkPolicyOptions('snapKV', options, 'window', 'pool');
  return policy(snapParts('snapKV', options));
}

/** What is common to snapKV and policies that differ from it in their budgets. */
export function snapParts(name: string, options: SnapKVOptions) {
  const window = windowOf(name, options);
  const pool = poolOf(name, options.pool);
  return {
    name,
    budget: options.budget,
    window,
    sums: ['sums'] as const,
    observes: (count: number) => Math.min(count, window),
    score: latestPooled(pool),
    select: (view: LayerView, count: number) => bestAndNewest(view, count, window),
  };
}

/** Options of {@link pyramidKV}. */
export interface PyramidKVOptions extends SnapKVOptions {
  /** How steep the pyramid is: besides the window the last layer keeps 1 / beta of the average. Default 20, as the authors' code. */
  beta?: number;
}

/**
 * PyramidKV (Cai et al. 2024, arXiv:2406.02069): {@link snapKV} with budgets that fall linearly from the first layer to the last. Besides the
 * window, w keys, the last layer keeps `low = (budget - w) / beta` and the first `2 (budget - w) - low`. Where the first has fewer keys
 * it keeps them all, and the pyramid is as much flatter; what another layer has no keys for goes to the rest in proportion. Budgets sum to
 * `budget * layers`, or to all keys there are.
 *
 * @param options `budget`; `window` (default 32, budget / 2 at most), `pool` (5), `beta` (20)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for a `budget` below 2, a `window` that is
 *   not 1 to `budget - 1`, a `pool` that is not odd or a `beta` below 1
 *
 * @example
 * ```ts
 * import { load, pyramidKV } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: pyramidKV({ budget: 512, beta: 10 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function pyramidKV(options: PyramidKVOptions): CachePolicy {
  const name = 'pyramidKV';
  checkPolicyOptions(name, options, 'window', 'pool', 'beta');
  const { budget, beta = 20 } = options;
  const parts = snapParts(name, options);
  realOption(name, 'beta', beta, 1);
  const free = budget - parts.window;
  return policy({
    ...parts,
    budgets: (layers) => {
      const most = layers.map(({ keys }) => keys);
      const last = layers.length - 1;
      const room = (most[0] as number) - parts.window;
      const high = Math.min(2 * free - free / beta, Math.max(room, free));
      const low = 2 * free - high;
      const weights = layers.map((_, i) => (last === 0 ? 1 : high + ((low - high) * i) / last));
      return cappedShares(budget, parts.window, weights, most);
    },
  });
}

/**
 * TOVA (Oren et al. 2024, arXiv:2401.06104): score of a key = its weight at the last query alone, summed over the heads of a kv head (the paper
 * takes the mean over all heads of a layer); the least looked at go. The newest key stays.
 *
 * @param options `budget`
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for a `budget` below 2
 *
 * @example
 * ```ts
 * import { load, tova } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: tova({ budget: 512 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function tova(options: PolicyOptions): CachePolicy {
  checkPolicyOptions('tova', options);
  const budget = wholeOption('tova', 'budget', options.budget, 2);
  return policy({
    name: 'tova',
    budget,
    sums: ['sums'],
    observes: () => 1,
    score: latest,
    select: (view, count) => bestAndNewest(view, count, 1),
  });
}
