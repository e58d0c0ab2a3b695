import { cappedShares } from './budgets.js';
import { checkPolicyOptions, perCache, policy, realOption, type SnapKVOptions } from './parts.js';
import { snapParts } from './policies.js';
import type { CachePolicy, Observation } from './policy.js';
import { columnSquares, columnSums, dispersion, meanPool } from './scores.js';

/** Options of {@link cake}. */
export interface CakeOptions extends SnapKVOptions {
  /** How much the entropy counts: its exponent is 1 / tau1. Default 1. */
  tau1?: number;
  /** The same for the variance. Default 1. */
  tau2?: number;
  /** How much a key's variance counts beside its mean. Default 200. */
  gamma?: number;
}

/**
 * CAKE (Qin et al. 2025, arXiv:2503.12491): layers whose attention is spread over many keys, or moves, keep more of them.
 *
 * - Layers: preference `P = H^(1 / tau1) * V^(1 / tau2)` of the attention a [queries, keys] of the last `window` queries, H its entropy
 *   `-sum over keys of a ln a` (mean over queries and heads), V its shift `sum over keys of Var over queries of a` (mean over heads). Each
 *   layer keeps the window and `P / sum of P` of the rest of the budget. A layer that has fewer keys keeps them all, and what it can not
 *   use goes to the others by their P (in equal parts in the authors' code); budgets sum to the total.
 * - Score: `mean + gamma * Var` over the queries of a key's weights, by query head; its mean over the heads of a kv head, then over
 *   `pool` neighbours.
 *
 * The paper's cascade shrinks the layers of before each time that a layer of the prompt has been computed, so that there never are more
 * keys than the budget and one layer's; what stays, as it shows, is what sharing once after the last layer leaves, as is done here after
 * each block. H and V are over all keys here, in the paper over those besides the window. While a text is generated, layers keep the
 * shares of the prompt: one query has no variance.
 *
 * @param options `budget`; `window` (default 32, budget / 2 at most), `pool` (5), `tau1` (1), `tau2` (1), `gamma` (200)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for a `budget` below 2, a `window` that is
 *   not 1 to `budget - 1`, a `pool` that is not odd, a `tau1` or `tau2` below 0.001 or a `gamma` below 0
 *
 * @example
 * ```ts
 * import { cake, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: cake({ budget: 512 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function cake(options: CakeOptions): CachePolicy {
  const name = 'cake';
  checkPolicyOptions(name, options, 'window', 'pool', 'tau1', 'tau2', 'gamma');
  const { window, ...parts } = snapParts(name, options);
  const tau1 = realOption(name, 'tau1', options.tau1 ?? 1, 1e-3);
  const tau2 = realOption(name, 'tau2', options.tau2 ?? 1, 1e-3);
  const gamma = realOption(name, 'gamma', options.gamma ?? 200, 0);
  const { pool = 5 } = options;
  /** By layer: what its share is in proportion to. */
  const memory = perCache(() => new Map<number, number>());
  return policy({
    ...parts,
    sums: ['sums', 'squares', 'entropy', 'variance'],
    score: (before, observation, step) => {
      if (observation === undefined) return [...before];
      if (observation.queries > 1) {
        const { entropy, variance } = dispersion(observation);
        // The sum over keys: a layer with more of them has more to keep.
        const shift = variance * observation.keys;
        memory(step).set(step.layer, entropy ** (1 / tau1) * shift ** (1 / tau2));
      }
      const scores = shiftScores(observation, gamma);
      const group = scores.length / before.length;
      return before.map((_, head) => {
        const mean = new Float32Array(observation.keys);
        for (const list of scores.slice(head * group, (head + 1) * group)) {
          for (let s = 0; s < mean.length; s++) {
            mean[s] = (mean[s] as number) + (list[s] as number) / group;
          }
        }
        return meanPool(mean, pool);
      });
    },
    budgets: (layers) =>
      cappedShares(
        options.budget,
        window,
        layers.map((view) => memory(view).get(view.layer) ?? 1),
        layers.map(({ keys }) => keys),
      ),
  });
}

/** `mean + gamma * variance` over the queries of each key's weights, by query head: [numHeads][keys]. */
function shiftScores(observation: Observation, gamma: number): Float32Array[] {
  const { numHeads, queries } = observation;
  const squares = columnSquares(observation, numHeads);
  return columnSums(observation, numHeads).map((sums, head) =>
    sums.map((sum, s) => {
      const mean = sum / queries;
      const square = (squares[head] as Float32Array)[s] as number;
      return mean + gamma * (square / queries - mean * mean);
    }),
  );
}
