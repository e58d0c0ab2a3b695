// Compression policies by name; each is a score, a budget and a selection.
import { argumentError } from '../../errors.js';
import type { CachePolicy, LayerView, Observation } from './policy.js';
import { columnSums, dispersion, maxPool, topIndices } from './scores.js';

/** Options of every policy. */
export interface PolicyOptions {
  /** Keys of a layer that stay, on average over the layers. */
  budget: number;
}

/** Options of policies that look at the last queries. */
export interface WindowOptions extends PolicyOptions {
  /** The newest tokens, which stay; their queries are what is looked at. Default 32, budget / 2 at most. */
  window?: number;
}

/** Options of {@link snapKV} and of what builds on it. */
export interface SnapKVOptions extends WindowOptions {
  /** Neighbours (odd) that a score is the largest of. Default 5. */
  pool?: number;
}

/** Options of {@link streamingLLM}. */
export interface StreamingLLMOptions extends PolicyOptions {
  /** First tokens that stay. Default 4. */
  sinks?: number;
}

/** Options of {@link cake}. */
export interface CakeOptions extends SnapKVOptions {
  /** How much the entropy counts: its exponent is 1 / tau1. Default 1. */
  tau1?: number;
  /** The same for the variance. Default 1. */
  tau2?: number;
  /** How much a key's variance counts beside its mean. Default 200. */
  gamma?: number;
}

/** Options of {@link chunkKV}. */
export interface ChunkKVOptions extends WindowOptions {
  /** Keys of a chunk. Default 10. */
  chunk?: number;
  /** Layers that share a choice. Default 1. */
  reuse?: number;
}

interface Parts {
  name: string;
  budget: number;
  observes?: (count: number) => number;
  score?: CachePolicy['score'];
  budgets?: CachePolicy['budgets'];
  select: CachePolicy['select'];
}

/** A policy from parts; by default it observes nothing and gives every layer the same budget. */
function policy(parts: Parts): CachePolicy {
  const { name, budget } = parts;
  return {
    name,
    budget,
    observes: parts.observes ?? (() => 0),
    score: parts.score ?? ((before) => [...before]),
    budgets: parts.budgets ?? ((layers) => layers.map(() => budget)),
    select: parts.select,
  };
}

function wholeOption(name: string, option: string, value: number, low: number): number {
  if (Number.isInteger(value) && value >= low) return value;
  throw argumentError(
    'BL_OUT_OF_RANGE',
    `${name}: ${option} is ${value}, expected a whole number of at least ${low}`,
  );
}

function windowOf(name: string, { budget, window }: WindowOptions): number {
  wholeOption(name, 'budget', budget, 2);
  if (window === undefined) return Math.min(32, Math.floor(budget / 2));
  wholeOption(name, 'window', window, 1);
  if (window < budget) return window;
  throw argumentError(
    'BL_OUT_OF_RANGE',
    `${name}: window is ${window}, expected less than ${budget} (= budget)`,
  );
}

const range = (begin: number, end: number): number[] =>
  Array.from({ length: Math.max(end - begin, 0) }, (_, i) => begin + i);

/** The best `count - window` of the older keys, and the newest `window`. */
function bestAndNewest(view: LayerView, count: number, window: number): Int32Array[] {
  const newest = Math.min(window, count);
  const older = view.keys - newest;
  return view.scores.map((scores) =>
    Int32Array.from([...topIndices(scores, count - newest, older), ...range(older, view.keys)]),
  );
}

/** Column sums of the observed queries added to what there is: keys that were looked at all along. */
const accumulate =
  (f?: (weight: number) => number): CachePolicy['score'] =>
  (before, observation) => {
    if (observation === undefined) return [...before];
    const now = columnSums(observation, before.length, f);
    return before.map((scores, head) =>
      scores.map((score, s) => score + ((now[head] as Float32Array)[s] as number)),
    );
  };

/** Column sums of the observed queries alone. */
const latest: CachePolicy['score'] = (before, observation) =>
  observation === undefined ? [...before] : columnSums(observation, before.length);

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
  const window = windowOf(name, { window: Math.floor(options.budget / 2), ...options });
  return policy({
    name,
    budget: options.budget,
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
  const window = windowOf(name, options);
  return policy({
    name,
    budget: options.budget,
    observes: (count) => Math.min(count, 4 * window),
    score: (before, observation) => {
      const threshold = observation === undefined ? 0 : 1 / observation.keys;
      return accumulate((weight) => (weight > threshold ? 1 : 0))(before, observation);
    },
    select: (view, count) => bestAndNewest(view, count, window),
  });
}

/** SnapKV (Li et al. 2024): score = weight of the last `window` queries, the largest of `pool` neighbours. */
export function snapKV(options: SnapKVOptions): CachePolicy {
  const { name, window, score } = snap('snapKV', options);
  return policy({
    name,
    budget: options.budget,
    observes: (count) => Math.min(count, window),
    score,
    select: (view, count) => bestAndNewest(view, count, window),
  });
}

function snap(name: string, options: SnapKVOptions) {
  const window = windowOf(name, options);
  const pool = wholeOption(name, 'pool', options.pool ?? 5, 1);
  if (pool % 2 === 0) {
    throw argumentError('BL_OUT_OF_RANGE', `${name}: pool is ${pool}, expected an odd number`);
  }
  const score: CachePolicy['score'] = (before, observation) => {
    if (observation === undefined) return [...before];
    return latest(before, observation).map((scores) => maxPool(scores, pool));
  };
  return { name, window, score };
}

/** PyramidKV (Cai et al. 2024): snapKV with a budget that falls linearly from 1.5 to 0.5 times over the layers. */
export function pyramidKV(options: SnapKVOptions): CachePolicy {
  const { name, window, score } = snap('pyramidKV', options);
  return policy({
    name,
    budget: options.budget,
    observes: (count) => Math.min(count, window),
    score,
    budgets: (layers) => {
      const last = Math.max(layers.length - 1, 1);
      return shares(
        options.budget,
        window,
        layers.map((_, i) => (layers.length === 1 ? 1 : 1.5 - i / last)),
      );
    },
    select: (view, count) => bestAndNewest(view, count, window),
  });
}

/** Budgets in proportion to `weights`, `budget` on average, none below `least`. */
function shares(budget: number, least: number, weights: readonly number[]): number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const all = budget * weights.length;
  const free = all - least * weights.length;
  if (!(total > 0) || !Number.isFinite(total)) return weights.map(() => budget);
  return weights.map((weight) => least + Math.floor((free * weight) / total));
}

/**
 * CAKE (Qin et al. 2025): a layer's share of the budget is entropy^(1 / tau1) * variance^(1 / tau2) of the attention of the last
 * `window` queries, over keys and over queries; score = mean + gamma * variance of a key's weights over those queries, pooled.
 */
export function cake(options: CakeOptions): CachePolicy {
  const { name, window } = snap('cake', options);
  const { tau1 = 1, tau2 = 1, gamma = 200, pool = 5 } = options;
  return policy({
    name,
    budget: options.budget,
    observes: (count) => Math.min(count, window),
    score: (before, observation) => {
      if (observation === undefined) return [...before];
      const rows =
        (observation.queries * (observation.probabilities.shape[0] as number)) / before.length;
      const sums = columnSums(observation, before.length);
      const squares = columnSums(observation, before.length, (weight) => weight * weight);
      return sums.map((sum, head) => {
        const scores = sum.map((value, s) => {
          const mean = value / rows;
          return (
            mean + gamma * (((squares[head] as Float32Array)[s] as number) / rows - mean * mean)
          );
        });
        return maxPool(scores, pool);
      });
    },
    budgets: (layers) =>
      shares(
        options.budget,
        window,
        layers.map(({ observed }) => {
          if (observed === undefined) return 1;
          const { entropy, variance } = dispersion(observed);
          return entropy ** (1 / tau1) * variance ** (1 / tau2);
        }),
      ),
    select: (view, count) => bestAndNewest(view, count, window),
  });
}

/**
 * ChunkKV (Liu et al. 2025): keys stay or go by chunks of `chunk` neighbours, by the sum of their snapKV scores over all heads;
 * of every `reuse` layers the first one's choice serves all.
 */
export function chunkKV(options: ChunkKVOptions): CachePolicy {
  const name = 'chunkKV';
  const window = windowOf(name, options);
  const size = wholeOption(name, 'chunk', options.chunk ?? 10, 1);
  const reuse = wholeOption(name, 'reuse', options.reuse ?? 1, 1);
  let chosen: { keys: number; count: number; kept: Int32Array } | undefined;
  return policy({
    name,
    budget: options.budget,
    observes: (count) => Math.min(count, window),
    score: latest,
    select: (view, count) => {
      const { keys, numKvHeads, layer, scores } = view;
      const isFirst = layer % reuse === 0;
      if (isFirst || chosen?.keys !== keys || chosen.count !== count) {
        chosen = {
          keys,
          count,
          kept: bestChunks(scores, keys, count, Math.min(window, count), size),
        };
      }
      const { kept } = chosen;
      return range(0, numKvHeads).map(() => kept);
    },
  });
}

function bestChunks(
  scores: readonly Float32Array[],
  keys: number,
  count: number,
  window: number,
  size: number,
): Int32Array {
  const older = keys - window;
  const sums = new Float32Array(Math.ceil(older / size));
  for (const head of scores) {
    for (let s = 0; s < older; s++) {
      const chunk = Math.floor(s / size);
      sums[chunk] = (sums[chunk] as number) + (head[s] as number);
    }
  }
  const kept: number[] = [];
  const order = range(0, sums.length).sort(
    (a, b) => (sums[b] as number) - (sums[a] as number) || a - b,
  );
  for (const chunk of order) {
    const room = count - window - kept.length;
    if (room <= 0) break;
    kept.push(...range(chunk * size, Math.min((chunk + 1) * size, older)).slice(0, room));
  }
  return Int32Array.from([...kept.sort((a, b) => a - b), ...range(older, keys)]);
}

/**
 * Keys by their weight at the last query alone (TOVA, Oren et al. 2024): the least looked at goes.
 */
export function tova(options: PolicyOptions): CachePolicy {
  const budget = wholeOption('tova', 'budget', options.budget, 2);
  return policy({
    name: 'tova',
    budget,
    observes: () => 1,
    score: latest,
    select: (view, count) => bestAndNewest(view, count, 1),
  });
}

export type { CachePolicy, LayerView, Observation };
