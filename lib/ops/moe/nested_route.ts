import { checkNumber, checkOptions, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import type { MoERoutes } from './moe_route.js';
import { checkArray, emptyRoutes, makeRoutes, routeValues, scoresOf } from './values.js';

/**
 * The same routes with weight 1 (0 where there is no expert), as Avg-K adds its blocks.
 *
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_OUT_OF_RANGE`; `BL_INVALID_ARGUMENT`, within a sequence too: it reads values
 *
 * @example
 * ```ts
 * const routes = moeRoute(new Tensor('f32', [1, 3, 2], [1, 3]), { topK: 2 });
 * unitWeights(routes).weights.toArray(); // [1, 1]
 * ```
 */
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
 * among those that are left; who is left at the end goes to the smallest (algorithm 1 of the paper). Each token goes to exactly
 * one expert, whose output is multiplied by `alpha r + 1` (equation 1), alpha trained, in [0, 1) and 0 at the beginning. In the
 * paper one router, at the first layer, decides for all layers.
 *
 * Scores are softmax(logits); of equals the token with the lower number first, which is this library's.
 *
 * @param logits [tokens, experts], smallest expert first
 * @returns routes `[tokens, 1]`
 * @throws as {@link moeRoute}; `BL_OUT_OF_RANGE` (capacities); `BL_INVALID_ARGUMENT` within a sequence: it reads values
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
  checkArray(op, 'capacities', capacities);
  const scores = scoresOf(op, logits, 'softmax').data;
  const [tokens = 0, experts = 0] = logits.shape;
  const isPart = (part: unknown) => typeof part === 'number' && part >= 0;
  if (capacities.length !== experts || !capacities.every(isPart)) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: capacities is [${capacities}], expected ${experts} numbers of at least 0`,
    );
  }
  const total = capacities.reduce((sum, part) => sum + part, 0);
  if (!(Math.abs(total - 1) <= 1e-6)) {
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

/** Options of {@link nestedCapacities}; the defaults are the paper's. */
export interface NestedCapacitiesOptions {
  /** Weight of the entropy, above 0. Default 10. */
  beta?: number;
  /** Expert i counts `delta^-i`; at least 1. Default 2. */
  delta?: number;
}

/**
 * Capacities of nested experts for a compute budget (MoNE, Jain et al. 2024, equation 3): of all parts c that add up to 1 and have
 * `sum(c * sizes) = budget`, those of the largest
 *
 *     sum of c[i] / delta^i  -  beta * sum of c[i] ln c[i]
 *
 * The first term counts the smallest expert most; with the budget given, what goes to it is made up for by the largest one. The paper
 * asks a general optimizer (SLSQP); the optimum is `c[i] = exp((delta^-i + slope * sizes[i]) / beta) / sum`, with the slope found by
 * bisection.
 *
 * @param sizes part of the full model that each expert is, smallest first, e.g. [1/8, 1/4, 1/2, 1] (the paper's)
 * @param budget part of the full model's work, between the smallest and the largest size
 * @throws `BL_OUT_OF_RANGE`
 *
 * @example
 * ```ts
 * nestedCapacities([0.25, 0.5, 1], 0.5); // [0.43..., 0.34..., 0.21...]
 * ```
 */
export function nestedCapacities(
  sizes: readonly number[],
  budget: number,
  options: NestedCapacitiesOptions = {},
): number[] {
  const op = 'nestedCapacities';
  checkArray(op, 'sizes', sizes);
  checkOptions(op, options, new Set(['beta', 'delta']));
  const { beta = 10, delta = 2 } = options;
  checkNumber(op, 'beta', beta, 'a finite number above 0', (x) => x > 0 && Number.isFinite(x));
  checkNumber(op, 'delta', delta, 'a number of at least 1', (x) => x >= 1);
  if (sizes.length === 0 || !sizes.every((size) => size > 0 && Number.isFinite(size))) {
    throw argumentError('BL_OUT_OF_RANGE', `${op}: sizes is [${sizes}], expected positive numbers`);
  }
  if (sizes.some((size, i) => size < (sizes[i - 1] ?? 0))) {
    throw argumentError('BL_OUT_OF_RANGE', `${op}: sizes is [${sizes}], expected rising numbers`);
  }
  const least = sizes[0] as number;
  const most = sizes.at(-1) as number;
  if (!(budget >= least && budget <= most)) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: budget is ${described(budget)}, expected ${least} to ${most} (sizes)`,
    );
  }
  /** `slope` is that of the formula divided by beta. */
  const at = (slope: number): number[] => {
    const powers = sizes.map((size, i) => delta ** -i / beta + slope * size);
    const largest = Math.max(...powers);
    const parts = powers.map((power) => Math.exp(power - largest));
    const sum = parts.reduce((a, b) => a + b, 0);
    return parts.map((part) => part / sum);
  };
  const spent = (slope: number): number =>
    at(slope).reduce((sum, part, i) => sum + part * (sizes[i] as number), 0);
  // The mean size grows with the slope: bisection, to the last bit of the slope that matters. At the ends it is infinite.
  let [low, high] = [-1 / most, 1 / most];
  for (let i = 0; i < 50 && spent(low) > budget; i++) low *= 2;
  for (let i = 0; i < 50 && spent(high) < budget; i++) high *= 2;
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (spent(middle) < budget) low = middle;
    else high = middle;
  }
  return at(high);
}
