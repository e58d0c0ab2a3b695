import { argumentError } from '../../errors.js';
import { cappedShares } from './budgets.js';
import {
  checkPolicyOptions,
  listOption,
  policy,
  poolOf,
  realOption,
  type SnapKVOptions,
  windowOf,
} from './parts.js';
import type { CachePolicy } from './policy.js';
import { headSums, meanPool } from './scores.js';
import { bestOf, sameForAll } from './selections.js';

/** Options of {@link compressKV}. */
export interface CompressKVOptions extends SnapKVOptions {
  /** Semantic retrieval heads of each layer (query heads), as `retrievalHeads` finds them. Default: all heads. */
  heads?: readonly (readonly number[])[];
  /** What compressing each layer alone does to its output, relative to it; layers share the budget accordingly. Default: equally. */
  errors?: readonly number[];
}

/**
 * CompressKV (Lin et al. 2025, arXiv:2508.02401): the semantic retrieval heads of a layer, those that look at a needle and what
 * surrounds it, choose the keys for all its heads: score = mean over them of the weights of the last `window` queries, the mean of
 * `pool` neighbours. Budgets of layers are in proportion to `errors`, `||O_full - O_compressed||_F / ||O_full||_F` of the attention
 * output, measured beforehand.
 *
 * @param options `budget`; `window` (default 32, budget / 2 at most), `pool` (5), `heads` (all), `errors` (all the same)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `heads` or `errors` that are no lists, `BL_OUT_OF_RANGE` for
 *   a `budget` below 2, a `window` that is not 1 to `budget - 1`, a `pool` that is not odd, errors below 0 or not finite, and, once
 *   used, for heads that the model has not; `BL_INVALID_SHAPE` once used, for lists of another length than the model has layers
 *
 * @example
 * ```ts
 * import { compressKV, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: compressKV({ budget: 512 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function compressKV(options: CompressKVOptions): CachePolicy {
  const name = 'compressKV';
  checkPolicyOptions(name, options, 'window', 'pool', 'heads', 'errors');
  const { budget, heads, errors } = options;
  const window = windowOf(name, options);
  const pool = poolOf(name, options.pool);
  for (const [layer, list] of listOption(name, 'heads', heads ?? []).entries()) {
    listOption(name, `heads[${layer}]`, list);
  }
  for (const [layer, error] of listOption(name, 'errors', errors ?? []).entries()) {
    realOption(name, `errors[${layer}]`, error, 0);
  }
  return policy({
    name,
    budget,
    sums: ['sums'],
    observes: (count) => Math.min(count, window),
    score: (before, observation, { layer, numLayers }) => {
      if (observation === undefined) return [...before];
      checkLayers(name, 'heads', heads?.length, numLayers);
      const chosen = heads?.[layer];
      checkHeads(name, layer, chosen, observation.numHeads);
      const count = chosen?.length ?? observation.numHeads;
      const mean = headSums(observation, chosen).map((sum) => sum / Math.max(count, 1));
      const pooled = meanPool(mean, pool);
      return before.map(() => pooled);
    },
    budgets: (layers) => {
      checkLayers(name, 'errors', errors?.length, layers.length);
      if (errors === undefined) return layers.map(() => budget);
      const most = layers.map(({ keys }) => keys);
      return cappedShares(budget, window, errors, most);
    },
    select: (view, count) =>
      sameForAll(view, bestOf(view.scores[0] as Float32Array, view.keys, count, window, 0)),
  });
}

export function checkLayers(
  name: string,
  option: string,
  length: number | undefined,
  numLayers: number,
): void {
  if (length === undefined || length === numLayers) return;
  throw argumentError(
    'BL_INVALID_SHAPE',
    `${name}: ${option}.length is ${length}, expected ${numLayers} (layers)`,
  );
}

function checkHeads(
  name: string,
  layer: number,
  heads: readonly number[] | undefined,
  numHeads: number,
): void {
  if (heads === undefined) return;
  const bad = heads.find((head) => !Number.isInteger(head) || head < 0 || head >= numHeads);
  if (bad === undefined && heads.length > 0) return;
  throw argumentError(
    'BL_OUT_OF_RANGE',
    `${name}: heads[${layer}] is [${heads}], expected at least one of 0 to ${numHeads - 1}`,
  );
}
