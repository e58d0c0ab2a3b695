import { cappedShares } from './budgets.js';
import { mergeRows, nearestKept, normalizedMerge } from './merges.js';
import {
  accumulate,
  checkPolicyOptions,
  perCache,
  policy,
  realOption,
  windowOf,
  type WindowOptions,
} from './parts.js';
import type { CachePolicy, LayerView } from './policy.js';
import { columnSums } from './scores.js';
import { bestAndNewest } from './selections.js';

/** Options of {@link d2o}. */
export interface D2OOptions extends WindowOptions {
  /** Weight of the present in the threshold's moving average. Default 0.7. */
  beta?: number;
  /** How much layers differ: shares of the budget are softmax(-density / temperature). Default 1. */
  temperature?: number;
}

/**
 * D2O (Wan et al. 2024, arXiv:2406.13035): layers with dense attention keep more, and what goes is merged into what it resembles.
 *
 * - Layers: `F = Var over keys of the column sums of the prompt's attention`, high where few keys have all the weight; share of the
 *   budget `softmax(-F)`, decided once, at the end of the first step that exceeds it. Here F is divided by its mean over layers
 *   and by `temperature`, as it grows with the length of the prompt. The authors' code (AIoT-MLSys-Lab/d2o) takes for F the mean over
 *   heads of each head's variance, brought from 0 to 1 between the least and the most of the layer's heads.
 * - Keys: H2O's score; the newest quarter (`window`) and the best others stay. The authors' code always keeps the first four, and leaves
 *   the first two layers and the last one whole; here none is special.
 * - Of a key i that goes, `u = max over kept j of cos(k_i, k_j)`. It is recalled if `u >= tau`, and else lost, where `tau` is the mean of
 *   u over what goes at first, and then `beta * mean(u) + (1 - beta) * tau`; by layer and head. In the authors' code, as here, but by layer
 *   alone (a key is recalled in all heads or in none, by the mean of u over heads), and with a beta of 0.5.
 * - Recalled ones go into their nearest: `w_i = exp(u_i) / (sum of exp(u) + e)`, and `e / (sum of exp(u) + e)` of what was there; of keys
 *   and of values. The authors' code adds `u_i k_i` and divides by how many rows came together, as LOOK-M's weighted merge does.
 *
 * The layers' softmax, the threshold and its average, and the nearest by cosine have been compared with the authors' code; the weights of
 * the merge and beta are the paper's from memory, as its formulas could not be read.
 *
 * @param options `budget`; `window` (default budget / 4), `beta` (0.7), `temperature` (1)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for a `budget` below 2, a `window` that is
 *   not 1 to `budget - 1`, a `beta` that is not 0 to 1 or a `temperature` below 0.001
 *
 * @example
 * ```ts
 * import { d2o, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: d2o({ budget: 256 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function d2o(options: D2OOptions): CachePolicy {
  const name = 'd2o';
  checkPolicyOptions(name, options, 'window', 'beta', 'temperature');
  const { budget } = options;
  const window = windowOf(name, options, (all) => Math.max(1, Math.floor(all / 4)));
  const beta = realOption(name, 'beta', options.beta ?? 0.7, 0, 1);
  const temperature = realOption(name, 'temperature', options.temperature ?? 1, 1e-3);
  const memory = perCache((): { weights?: number[]; thresholds: Map<string, number> } => ({
    thresholds: new Map(),
  }));
  return policy({
    name,
    budget,
    sums: ['sums'],
    observes: (count) => count,
    score: accumulate(),
    budgets: (layers) => {
      const known = memory(layers[0] as LayerView);
      known.weights ??= densityWeights(layers.map(columnVariance), temperature);
      const most = layers.map(({ keys }) => keys);
      return cappedShares(budget, Math.min(window + 1, budget), known.weights, most);
    },
    select: (view, count) => bestAndNewest(view, count, window),
    merge: (view, kept, content) => {
      const { thresholds } = memory(view);
      const { going, target, similarity } = nearestKept(view, kept, content);
      for (const [head, from] of going.entries()) {
        const u = similarity[head] as Float32Array;
        const key = `${view.layer}.${head}`;
        const tau = movingThreshold(thresholds.get(key), u, beta);
        thresholds.set(key, tau);
        const recalled = [...from.keys()].filter((i) => (u[i] as number) >= tau);
        mergeRows(
          content,
          head,
          normalizedMerge(
            recalled.map((i) => from[i] as number),
            recalled.map((i) => (kept[head] as Int32Array)[target[head]?.[i] as number] as number),
            recalled.map((i) => Math.exp(u[i] as number)),
            () => Math.E,
          ),
        );
      }
    },
  });
}

/** The mean of u at first, then a moving average; NaN among u (keys that are not finite) is left out. */
export function movingThreshold(
  before: number | undefined,
  u: ArrayLike<number>,
  beta: number,
): number {
  let sum = 0;
  let count = 0;
  for (let i = 0; i < u.length; i++) {
    if (Number.isNaN(u[i])) continue;
    sum += u[i] as number;
    count++;
  }
  if (count === 0) return before ?? 1;
  const mean = sum / count;
  return before === undefined ? mean : beta * mean + (1 - beta) * before;
}

/** Variance over keys of the column sums, all heads together. */
function columnVariance({ observed, numKvHeads, keys }: LayerView): number {
  if (observed === undefined) return 0;
  const sums = new Float64Array(keys);
  for (const head of columnSums(observed, numKvHeads)) {
    for (let s = 0; s < keys; s++) sums[s] = (sums[s] as number) + (head[s] as number);
  }
  const mean = sums.reduce((a, b) => a + b, 0) / keys;
  return sums.reduce((a, b) => a + (b - mean) ** 2, 0) / keys;
}

/** softmax(-F / mean(F) / temperature) */
export function densityWeights(variances: readonly number[], temperature: number): number[] {
  const mean = variances.reduce((a, b) => a + b, 0) / variances.length;
  if (!(mean > 0)) return variances.map(() => 1 / variances.length);
  const powers = variances.map((variance) => Math.exp(-variance / mean / temperature));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}
