import { checkOptions } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { Tensor } from '../../tensor.js';
import { type LimitCapacityOptions, type LimitedRoutes, limit } from './capacity.js';
import type { MoERoutes } from './moe_route.js';
import {
  checkAxis,
  checkChoice,
  checkInteger,
  finiteMatrixOf,
  makeRoutes,
  type RouteValues,
  routeValues,
} from './values.js';

/** Options of {@link rectifyRoutes}. */
export interface RectifyOptions extends LimitCapacityOptions {
  /** Shape `[tokens, numExperts]`, at least 0: the router's scores of all experts, `scores` of {@link moeRoute}. */
  scores: Tensor<'f32'>;
  /** Devices that hold experts, equally many consecutive ones each, and tokens likewise. Default 1. */
  numDevices?: number;
  /** Dropped routes go to the best expert of the token's own device. Default true. */
  intraDevice?: boolean;
  /** Room that is left takes tokens for their next best expert. Default true. */
  fillIn?: boolean;
  /** Whether a token's weights are divided by their sum. Default true, the paper's. */
  normalize?: boolean;
}

const known = new Set([
  'numExperts',
  'capacity',
  'by',
  'scores',
  'numDevices',
  'intraDevice',
  'fillIn',
  'normalize',
]);

/**
 * Capacity with its repair, the Rectify-Router ("Turn Waste into Worth", Zeng et al. 2024): what top-k routing drops goes
 * elsewhere, and what would be padding is filled. With a = logits, K the experts that token i chose, R those of them that are
 * left behind {@link limitCapacity}:
 *
 * 1. Intra-device rectification: `h`, the expert of the highest score on the token's own device, whether it is full or not (no data
 *    travels between devices), takes the place of all |K| - |R| routes that the token lost:
 *    `out = (sum over j in R of exp(a_j) E_j(x) + (|K| - |R|) exp(a_h) E_h(x)) / (the same sum without E)`.
 *    Where h is in R, its weights are added up in one route; else it stands in the column of the first lost route.
 * 2. Fill-in rectification: each token has one candidate, the best expert that it did not choose (top-k becomes top-(k + 1)). An expert with
 *    room takes the tokens whose candidate it is, by falling score. They are in column `topK` of the result.
 *
 * Weights are scores, which are in proportion to exp(a) for a softmax, times |K| - |R| for h, divided by their sum; those of `routes` do no more
 * than say who is dropped (`by: 'probability'`).
 *
 * The two equations as they are restated by Kazemi Taskooh and Zare Harofte 2026 (arXiv:2602.12778, A.3 and A.4), who use the router; the
 * paper itself could not be read beyond its abstract. This library's: that both repair the same top-k routes (a token that comes by
 * the first takes no room), that a token goes nowhere twice, and that of equals the lower expert, the lower token comes first.
 *
 * @returns indices and weights `[tokens, topK + 1]`, or `[tokens, topK]` where nothing is filled in; `dropped` counts what stays dropped
 * @throws as {@link limitCapacity}; `BL_NON_FINITE`, `BL_OUT_OF_RANGE` (scores)
 *
 * @example
 * ```ts
 * const scores = Tensor.zeros('f32', [3, 2]);
 * const routes = moeRoute(new Tensor('f32', [2, 1, 2, 0, 3, 1], [3, 2]), { topK: 1, scores });
 * rectifyRoutes(routes, { numExperts: 2, capacity: 2, scores, fillIn: false }).indices.toArray(); // [0, 0, 0]
 * ```
 */
export function rectifyRoutes(routes: MoERoutes, options: RectifyOptions): LimitedRoutes {
  const op = 'rectifyRoutes';
  checkOptions(op, options, known);
  const { numExperts, capacity, by = 'position', numDevices = 1 } = options;
  const { intraDevice = true, normalize = true } = options;
  checkInteger(op, 'numExperts', numExperts, 1, 2 ** 31 - 1);
  checkInteger(op, 'capacity', capacity, 0, 2 ** 31 - 1);
  checkInteger(op, 'numDevices', numDevices, 1, numExperts);
  checkChoice(op, 'by', by, ['position', 'probability']);
  if (numExperts % numDevices !== 0) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: numDevices is ${numDevices}, expected a divisor of ${numExperts} (numExperts)`,
    );
  }
  const values = routeValues(op, routes, numExperts);
  const { tokens, topK } = values;
  const scores = scoreRows(op, options.scores, tokens, numExperts);
  const chosen = Int32Array.from(values.indices);
  let dropped = limit(op, values, numExperts, capacity, by);
  const room = new Int32Array(numExperts).fill(capacity);
  for (const e of values.indices) if (e >= 0) room[e] = (room[e] as number) - 1;
  const result: RouteValues = {
    indices: new Int32Array(tokens * (topK + 1)).fill(-1),
    weights: new Float32Array(tokens * (topK + 1)),
    tokens,
    topK: topK + 1,
  };
  const candidates: { token: number; expert: number }[] = [];
  // How many times a route counts.
  const times = new Int32Array(tokens * (topK + 1));
  for (let t = 0; t < tokens; t++) {
    const all = scores[t] as ArrayLike<number>;
    const wanted = chosen.subarray(t * topK, (t + 1) * topK);
    const own = result.indices.subarray(t * (topK + 1), (t + 1) * (topK + 1));
    const counts = times.subarray(t * (topK + 1), (t + 1) * (topK + 1));
    own.set(values.indices.subarray(t * topK, (t + 1) * topK));
    for (let k = 0; k < topK; k++) counts[k] = (own[k] as number) >= 0 ? 1 : 0;
    if (intraDevice) {
      const size = numExperts / numDevices;
      const first = Math.floor((t * numDevices) / tokens) * size;
      dropped -= keepOnDevice(own, counts, wanted, best(all, first, first + size));
    }
    const next = best(all, 0, numExperts, wanted);
    if (next >= 0 && !own.includes(next)) candidates.push({ token: t, expert: next });
  }
  const filled = (options.fillIn ?? true) && fillIn(candidates, scores, room, result, times);
  for (let t = 0; t < tokens; t++)
    weigh(t, scores[t] as ArrayLike<number>, result, times, normalize);
  return { ...makeRoutes(filled ? result : narrowed(result)), dropped };
}

/** @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_NON_FINITE`, `BL_OUT_OF_RANGE` */
function scoreRows(
  op: string,
  tensor: Tensor<'f32'>,
  tokens: number,
  numExperts: number,
): ArrayLike<number>[] {
  const { values } = finiteMatrixOf(op, 'scores', tensor);
  checkAxis(op, 'scores', tensor, 0, tokens, 'indices.shape[0]');
  checkAxis(op, 'scores', tensor, 1, numExperts, 'numExperts');
  const all = Float64Array.from(values);
  const odd = all.findIndex((score) => score < 0);
  if (odd >= 0) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: scores[${Math.floor(odd / numExperts)}, ${odd % numExperts}] is ${all[odd]}, expected at least 0`,
    );
  }
  return Array.from({ length: tokens }, (_, t) =>
    all.subarray(t * numExperts, (t + 1) * numExperts),
  );
}

/** The expert of the highest score in [begin, end), but for `others`; of equals the first; -1: none. */
function best(scores: ArrayLike<number>, begin: number, end: number, others?: Int32Array): number {
  let found = -1;
  for (let e = begin; e < end; e++) {
    if (others?.includes(e)) continue;
    if (found < 0 || (scores[e] as number) > (scores[found] as number)) found = e;
  }
  return found;
}

/** Sends the routes that a token has lost to `expert`; gives how many. `times`: how often each of its routes counts. */
function keepOnDevice(
  own: Int32Array,
  times: Int32Array,
  wanted: Int32Array,
  expert: number,
): number {
  const isLost = (e: number, k: number) => e >= 0 && (own[k] as number) < 0;
  const lost = wanted.filter(isLost).length;
  if (lost === 0) return 0;
  const there = own.indexOf(expert);
  const at = there >= 0 ? there : wanted.findIndex(isLost);
  own[at] = expert;
  times[at] = (times[at] as number) + lost;
  return lost;
}

/** Gives experts with room the best of their candidates, in the last column; whether there were any. */
function fillIn(
  candidates: { token: number; expert: number }[],
  scores: readonly ArrayLike<number>[],
  room: Int32Array,
  { indices, topK }: RouteValues,
  times: Int32Array,
): boolean {
  const score = ({ token, expert }: { token: number; expert: number }) =>
    scores[token]?.[expert] as number;
  const order = [...candidates].sort((a, b) => score(b) - score(a) || a.token - b.token);
  let filled = false;
  for (const { token, expert } of order) {
    if ((room[expert] as number) <= 0) continue;
    room[expert] = (room[expert] as number) - 1;
    indices[(token + 1) * topK - 1] = expert;
    times[(token + 1) * topK - 1] = 1;
    filled = true;
  }
  return filled;
}

/** Writes the weights of a token's routes. */
function weigh(
  token: number,
  scores: ArrayLike<number>,
  { indices, weights, topK }: RouteValues,
  times: Int32Array,
  normalize: boolean,
): void {
  const own: number[] = [];
  for (let i = token * topK; i < (token + 1) * topK; i++) {
    const e = indices[i] as number;
    own.push(e < 0 ? 0 : (times[i] as number) * (scores[e] as number));
  }
  const sum = own.reduce((a, b) => a + b, 0);
  const divisor = normalize && sum > 0 ? sum : 1;
  own.forEach((weight, i) => {
    weights[token * topK + i] = weight / divisor;
  });
}

/** Without the last column. */
function narrowed({ indices, weights, tokens, topK }: RouteValues): RouteValues {
  const isKept = (_: number, i: number) => i % topK < topK - 1;
  return {
    indices: indices.filter(isKept),
    weights: weights.filter(isKept),
    tokens,
    topK: topK - 1,
  };
}
