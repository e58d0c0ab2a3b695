import { checkObject, checkOptions, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import type { MoERoutes } from './moe_route.js';
import { emptyRoutes, makeRoutes, routeValues, scoresOf } from './values.js';

/** The same routes with weight 1 (0 where there is no expert), as Avg-K adds its blocks. */
export function unitWeights(routes: MoERoutes): MoERoutes {
  const values = routeValues('unitWeights', routes, 2 ** 31 - 1);
  values.weights = Float32Array.from(values.indices, (e) => (e < 0 ? 0 : 1));
  return makeRoutes(values);
}

/** Options of {@link nestedRoute}. */
export interface NestedRouteOptions {
  /** Part of the tokens that each expert takes, smallest expert first; adds up to 1. */
  capacities: readonly number[];
  /** What a token's score adds to its weight, `1 + alpha * score`. Default 0: weight 1. */
  alpha?: number;
}

/**
 * Mixture of nested experts (MoNE, Jain et al. 2024), whose experts are growing prefixes of the same weights: expert
 * preferred routing. From the largest expert down, each takes the `floor(capacity * tokens)` tokens of its highest score
 * among those that are left; who is left at the end goes to the smallest. Each token goes to exactly one expert; in the
 * paper its output is multiplied by `alpha r + 1`, alpha trained and 0 at the beginning. The order and the factor follow the
 * paper from memory.
 *
 * Scores are softmax(logits); of equals the token with the lower number first.
 *
 * @param logits [tokens, experts], smallest expert first
 * @returns routes `[tokens, 1]`
 * @throws as {@link moeRoute}; `BL_OUT_OF_RANGE` (capacities)
 *
 * @example
 * ```ts
 * const logits = new Tensor('f32', [0, 1, 0, 3, 0, 2], [3, 2]);
 * nestedRoute(logits, { capacities: [2 / 3, 1 / 3] }).indices.toArray(); // [0, 1, 0]
 * ```
 */
export function nestedRoute(logits: Tensor<FloatDType>, options: NestedRouteOptions): MoERoutes {
  const op = 'nestedRoute';
  checkOptions(op, options, new Set(['capacities', 'alpha']));
  const { capacities, alpha = 0 } = options;
  checkObject(op, 'capacities', capacities);
  const scores = scoresOf(op, logits, 'softmax').data;
  const [tokens = 0, experts = 0] = logits.shape;
  const total = capacities.reduce((sum, part) => sum + part, 0);
  if (capacities.length !== experts || capacities.some((part) => !(part >= 0))) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: capacities is [${capacities}], expected ${experts} numbers of at least 0`,
    );
  }
  if (Math.abs(total - 1) > 1e-6) {
    throw argumentError('BL_OUT_OF_RANGE', `${op}: capacities add up to ${total}, expected 1`);
  }
  if (!Number.isFinite(alpha)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: alpha is ${described(alpha)}, expected a finite number`,
    );
  }
  const routes = emptyRoutes(tokens, 1);
  for (let e = experts - 1; e >= 0; e--) {
    const score = (t: number) => scores[t * experts + e] as number;
    // 1e-9: two thirds of three tokens are two of them.
    const room = e === 0 ? tokens : Math.floor((capacities[e] as number) * tokens + 1e-9);
    const left: number[] = [];
    routes.indices.forEach((own, t) => {
      if (own < 0) left.push(t);
    });
    left.sort((a, b) => score(b) - score(a) || a - b);
    for (const t of left.slice(0, room)) {
      routes.indices[t] = e;
      routes.weights[t] = 1 + alpha * score(t);
    }
  }
  return makeRoutes(routes);
}

/**
 * Capacities of nested experts for a compute budget: `sum(capacities * sizes) = budget`, and of all that do the ones of the
 * highest entropy, `capacities[i] = exp(b sizes[i]) / sum` (MoNE chooses them by budget, entropy and a preference for
 * larger experts; this is its form without the preference, from memory).
 *
 * @param sizes part of the full model that each expert is, e.g. [1/8, 1/4, 1/2, 1]
 * @param budget part of the full model's work, between the smallest and the largest size
 * @throws `BL_OUT_OF_RANGE`
 *
 * @example
 * ```ts
 * nestedCapacities([0.25, 0.5, 1], 0.5); // [0.47..., 0.34..., 0.18...]
 * ```
 */
export function nestedCapacities(sizes: readonly number[], budget: number): number[] {
  const op = 'nestedCapacities';
  checkObject(op, 'sizes', sizes);
  const least = Math.min(...sizes);
  const most = Math.max(...sizes);
  if (sizes.length === 0 || !sizes.every((size) => size > 0 && Number.isFinite(size))) {
    throw argumentError('BL_OUT_OF_RANGE', `${op}: sizes is [${sizes}], expected positive numbers`);
  }
  if (!(budget >= least && budget <= most)) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: budget is ${described(budget)}, expected ${least} to ${most} (sizes)`,
    );
  }
  const at = (slope: number) => {
    const powers = sizes.map((size) => Math.exp(slope * (size - (slope > 0 ? most : least))));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / sum);
  };
  const spent = (parts: readonly number[]) =>
    parts.reduce((sum, part, i) => sum + part * (sizes[i] as number), 0);
  // The mean size grows with the slope: bisection, to the last bit of the slope that matters.
  let low = -1000 / most;
  let high = 1000 / most;
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (spent(at(middle)) < budget) low = middle;
    else high = middle;
  }
  return at(high);
}
