import { shares } from './budgets.js';
import { checkPolicyOptions, perCache, policy, realOption, type SnapKVOptions } from './parts.js';
import { snapParts } from './policies.js';
import type { CachePolicy } from './policy.js';
import { columnSquares, columnSums, dispersion, maxPool } from './scores.js';

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
 * CAKE (Qin et al. 2025): a layer's share of the budget is entropy^(1 / tau1) * variance^(1 / tau2) of the attention of the last
 * `window` queries, over keys and over queries; score = mean + gamma * variance of a key's weights over those queries, pooled.
 * While a text is generated, layers keep the shares of the prompt: one query has no variance.
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
        memory(step).set(step.layer, entropy ** (1 / tau1) * variance ** (1 / tau2));
      }
      const rows = (observation.queries * observation.numHeads) / before.length;
      const sums = columnSums(observation, before.length);
      const squares = columnSquares(observation, before.length);
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
        layers.map((view) => memory(view).get(view.layer) ?? 1),
      ),
  });
}
