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
 * StreamingLLM (Xiao et al. 2024): the first `sinks` tokens and the newest ones; attention is not looked at.
 *
 * @example
 * ```ts
 * decoder.generate(text, { cache: { policy: streamingLLM({ budget: 256 }) } });
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

/** H2O (Zhang et al. 2023): score = sum over all queries so far of the weight; the best older keys and the newest `window`. */
export function h2o(options: WindowOptions): CachePolicy {
  const name = 'h2o';
  checkPolicyOptions(name, options, 'window');
  const window = windowOf(name, options, Math.floor(options.budget / 2));
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
 * Scissorhands (Liu et al. 2023): score = how often a key had more than the average weight 1 / keys, over the queries that were
 * observed; the best older keys and the newest `window`.
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

/** SnapKV (Li et al. 2024): score = weight of the last `window` queries, the largest of `pool` neighbours. */
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
 * it keeps them all, and the pyramid is as much flatter; what another layer has no keys for goes to the rest in proportion.
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
 * Keys by their weight at the last query alone (TOVA, Oren et al. 2024): the least looked at goes.
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
