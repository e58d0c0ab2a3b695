// Gradients with respect to a router's logits. In double; each token on its own but for the counts of the balance.
import { described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { MoERoutes, MoEScoring } from '../../ops/moe/moe_route.js';
import { checkAxis, indicesOf, logitsOf } from '../../ops/moe/values.js';
import type { Tensor } from '../../tensor.js';

/** How the weights of routes came about, as in `moeRoute`. */
export interface RouteRule {
  scoring: MoEScoring;
  normalize: boolean;
  scale: number;
}

function countsOf(routes: Int32Array, experts: number): number[] {
  const counts = new Array<number>(experts).fill(0);
  for (const e of routes) if (e >= 0) counts[e] = (counts[e] as number) + 1;
  return counts;
}

/** Parts of all routes. @throws `BL_OUT_OF_RANGE` */
function sharesOf(op: string, counts: readonly number[], experts: number): Float64Array {
  const isCount = (n: unknown) => typeof n === 'number' && n >= 0 && Number.isFinite(n);
  if (counts.length !== experts || !counts.every(isCount)) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: counts is [${counts}], expected ${experts} numbers of at least 0`,
    );
  }
  const total = counts.reduce((sum, n) => sum + n, 0);
  return Float64Array.from(counts, (n) => n / (total > 0 ? total : 1));
}

/** Losses of a router over a batch, and their gradient. */
export interface RouterLosses {
  /** Load balance (Fedus et al. 2021): experts * sum of f * p; 1 where all experts are used alike. */
  balance: number;
  /** z-loss (Zoph et al. 2022): the mean square of the logits' log-sum-exp. */
  z: number;
  /** Shape `[tokens, experts]`: of `balanceWeight * balance + zWeight * z`, with respect to the logits. */
  gradient: Float64Array;
}

/** Softmax of a row into `out`; gives its log-sum-exp. */
function softmaxRow(logits: ArrayLike<number>, at: number, out: Float64Array): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (let e = 0; e < out.length; e++) largest = Math.max(largest, logits[at + e] as number);
  let sum = 0;
  for (let e = 0; e < out.length; e++) {
    out[e] = Math.exp((logits[at + e] as number) - largest);
    sum += out[e] as number;
  }
  for (let e = 0; e < out.length; e++) out[e] = (out[e] as number) / sum;
  return largest + Math.log(sum);
}

/**
 * Both losses over a batch. f (the part of the routes that goes to an expert; those to nowhere do not count, as in `RouterLoad`)
 * counts as constant, p is the mean probability of an expert, so that `d balance / d p = experts * f / tokens`.
 *
 * @param logits [tokens, experts]
 * @param indices [tokens, topK], -1 of routes that go nowhere
 * @param counts [experts]: routes that f is of, those of the global batch (Qiu et al. 2025), as `statistics().counts` of
 *   `RouterLoad` has them after a merge. Default: those of `indices`, the micro-batch form
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_OUT_OF_RANGE` (an index), `BL_NON_FINITE` (as `moeRoute`),
 *   `BL_INVALID_ARGUMENT` (within a sequence, too)
 *
 * @example
 * ```ts
 * const { indices } = moeRoute(logits, { topK: 2 });
 * const { balance, z, gradient } = routerLosses(logits, indices, 0.01, 0.001);
 * ```
 */
export function routerLosses(
  logits: Tensor<'f32'>,
  indices: Tensor<'i32'>,
  balanceWeight: number,
  zWeight: number,
  counts?: readonly number[],
): RouterLosses {
  const op = 'routerLosses';
  const { values, rows: tokens, cols: experts } = logitsOf(op, 'logits', logits);
  const routes = indicesOf(op, 'indices', indices, experts);
  checkAxis(op, 'indices', indices, 0, tokens, 'logits.shape[0]');
  const share = sharesOf(op, counts ?? countsOf(routes, experts), experts);
  const gradient = new Float64Array(tokens * experts);
  const p = new Float64Array(experts);
  let balance = 0;
  let z = 0;
  for (let t = 0; t < tokens; t++) {
    const lse = softmaxRow(values, t * experts, p);
    let met = 0; // sum of f p of this token
    for (let e = 0; e < experts; e++) met += (share[e] as number) * (p[e] as number);
    balance += (experts * met) / tokens;
    z += (lse * lse) / tokens;
    for (let e = 0; e < experts; e++) {
      const fall = experts * ((share[e] as number) - met) * balanceWeight + 2 * lse * zWeight;
      gradient[t * experts + e] = ((p[e] as number) * fall) / tokens;
    }
  }
  return { balance, z, gradient };
}

/**
 * Adds to `gradient` what the weights of routes give: the derivative of `moeRoute` where the choice of experts stays
 * as it is.
 *
 * @param logits [tokens, experts]
 * @param weightGradient [tokens, topK]
 */
export function addRouteGradient(
  logits: Tensor<'f32'>,
  routes: MoERoutes,
  weightGradient: Float64Array,
  { scoring, normalize, scale }: RouteRule,
  gradient: Float64Array,
): void {
  const [tokens = 0, experts = 0] = logits.shape;
  const topK = routes.indices.shape[1] ?? 0;
  const chosenAlone = normalize || scoring === 'softmaxChosen';
  const scores = new Float64Array(experts);
  const slopes = new Float64Array(topK); // of the loss by the score of each route
  for (let t = 0; t < tokens; t++) {
    if (scoring === 'sigmoid') {
      for (let e = 0; e < experts; e++) {
        scores[e] = 1 / (1 + Math.exp(-(logits.data[t * experts + e] as number)));
      }
    } else softmaxRow(logits.data, t * experts, scores);
    const expert = (s: number) => routes.indices.data[t * topK + s] as number;
    let sum = 0;
    let met = 0; // sum of weightGradient * score
    for (let s = 0; s < topK; s++) {
      sum += scores[expert(s)] as number;
      met += (weightGradient[t * topK + s] as number) * (scores[expert(s)] as number);
    }
    for (let s = 0; s < topK; s++) {
      const g = weightGradient[t * topK + s] as number;
      // weight = scale * score / sum: sum is none where all scores underflowed, and so are the weights.
      slopes[s] = scale * (!chosenAlone ? g : sum > 0 ? (g - met / sum) / sum : 0);
    }
    if (scoring === 'sigmoid') {
      for (let s = 0; s < topK; s++) {
        const score = scores[expert(s)] as number;
        const at = t * experts + expert(s);
        gradient[at] = (gradient[at] as number) + (slopes[s] as number) * score * (1 - score);
      }
      continue;
    }
    let mean = 0; // sum of slope * score
    for (let s = 0; s < topK; s++) mean += (slopes[s] as number) * (scores[expert(s)] as number);
    for (let e = 0; e < experts; e++) {
      gradient[t * experts + e] =
        (gradient[t * experts + e] as number) - (scores[e] as number) * mean;
    }
    for (let s = 0; s < topK; s++) {
      const at = t * experts + expert(s);
      gradient[at] =
        (gradient[at] as number) + (slopes[s] as number) * (scores[expert(s)] as number);
    }
  }
}

/** The route rule of a layer's options. */
export function routeRule(options: {
  scoring?: MoEScoring;
  normalize?: boolean;
  scale?: number;
}): RouteRule {
  const { scoring = 'softmax', normalize = false, scale = 1 } = options;
  if (!['softmax', 'softmaxChosen', 'sigmoid'].includes(scoring)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `moeLayerForward: scoring is ${described(scoring)}, expected softmax, softmaxChosen, sigmoid`,
    );
  }
  return { scoring, normalize, scale };
}
