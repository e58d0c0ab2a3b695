import { checkObject, checkOptions, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { Tensor } from '../../tensor.js';
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

const mostTokens = 2 ** 31 - 1;

/**
 * Tokens that an expert may take: `ceil(factor * topK * tokens / numExperts)` (GShard, Lepikhin et al. 2020; Switch,
 * Fedus et al. 2021).
 *
 * @throws `BL_OUT_OF_RANGE`
 *
 * @example
 * ```ts
 * expertCapacity({ tokens: 256, topK: 2, numExperts: 8, factor: 1.25 }); // 80
 * ```
 */
export function expertCapacity(shape: {
  tokens: number;
  topK: number;
  numExperts: number;
  /** 1: what an expert gets when all get as many. */
  factor: number;
}): number {
  const op = 'expertCapacity';
  checkObject(op, 'shape', shape);
  const { tokens, topK, numExperts, factor } = shape;
  checkInteger(op, 'tokens', tokens, 0, mostTokens);
  checkInteger(op, 'topK', topK, 1, mostTokens);
  checkInteger(op, 'numExperts', numExperts, 1, mostTokens);
  if (!Number.isFinite(factor) || factor < 0) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: factor is ${described(factor)}, expected at least 0`,
    );
  }
  return Math.ceil((factor * topK * tokens) / numExperts);
}

/** Options of {@link limitCapacity}. */
export interface LimitCapacityOptions {
  numExperts: number;
  /** Tokens that an expert takes at most: see {@link expertCapacity}. */
  capacity: number;
  /**
   * Who stays: `'position'`: all first choices in the order of the tokens, then all second choices, and so on (GShard);
   * `'probability'`: those of the highest weight, of equals the first choice and the first token (V-MoE's batch
   * prioritized routing, Riquelme et al. 2021, for each expert by itself).
   */
  by?: 'position' | 'probability';
}

/** What {@link limitCapacity} and {@link rectifyRoutes} give. */
export interface LimitedRoutes extends MoERoutes {
  /** Routes that are no more. */
  dropped: number;
}

/**
 * Drops routes to experts that are full: their index becomes -1, their weight 0. Other weights stay.
 *
 * @throws `BL_OUT_OF_RANGE`, `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT` (within a sequence, too),
 *   `BL_NON_FINITE` (a weight that is NaN, with `'probability'`)
 *
 * @example
 * ```ts
 * const routes = moeRoute(new Tensor('f32', [2, 1, 2, 0, 3, 1], [3, 2]), { topK: 1 });
 * limitCapacity(routes, { numExperts: 2, capacity: 2 }).indices.toArray(); // [0, 0, -1]
 * ```
 */
export function limitCapacity(routes: MoERoutes, options: LimitCapacityOptions): LimitedRoutes {
  const op = 'limitCapacity';
  checkOptions(op, options, new Set(['numExperts', 'capacity', 'by']));
  const { numExperts, capacity, by = 'position' } = options;
  checkInteger(op, 'numExperts', numExperts, 1, mostTokens);
  checkInteger(op, 'capacity', capacity, 0, mostTokens);
  checkChoice(op, 'by', by, ['position', 'probability']);
  const values = routeValues(op, routes, numExperts);
  const dropped = limit(op, values, numExperts, capacity, by);
  return { ...makeRoutes(values), dropped };
}

/** Route numbers, token * topK + k, in the order in which they may claim an expert. */
function claims({ weights, tokens, topK }: RouteValues, by: string): number[] {
  const order: number[] = [];
  for (let k = 0; k < topK; k++) for (let t = 0; t < tokens; t++) order.push(t * topK + k);
  if (by === 'position') return order;
  return order
    .map((route, place) => ({ route, place, weight: weights[route] as number }))
    .sort((a, b) => b.weight - a.weight || a.place - b.place)
    .map(({ route }) => route);
}

function limit(
  op: string,
  values: RouteValues,
  numExperts: number,
  capacity: number,
  by: string,
): number {
  const odd = by === 'probability' ? values.weights.findIndex(Number.isNaN) : -1;
  if (odd >= 0) {
    const at = `${Math.floor(odd / values.topK)}, ${odd % values.topK}`;
    throw argumentError('BL_NON_FINITE', `${op}: routes.weights[${at}] is NaN, expected a number`);
  }
  const counts = new Int32Array(numExperts);
  let dropped = 0;
  for (const route of claims(values, by)) {
    const expert = values.indices[route] as number;
    if (expert < 0) continue;
    if ((counts[expert] as number) < capacity) {
      counts[expert] = (counts[expert] as number) + 1;
    } else {
      values.indices[route] = -1;
      values.weights[route] = 0;
      dropped++;
    }
  }
  return dropped;
}

/** Options of {@link rectifyRoutes}. */
export interface RectifyOptions extends LimitCapacityOptions {
  /** Shape `[tokens, numExperts]`: the router's scores of all experts, `scores` of {@link moeRoute}. */
  scores: Tensor<'f32'>;
  /** Devices that hold experts, equally many consecutive ones each, and tokens likewise. Default 1. */
  numDevices?: number;
  /** Dropped routes go to the best expert of the token's own device. Default true. */
  intraDevice?: boolean;
  /** Room that is left takes the tokens of the highest scores. Default true. */
  fillIn?: boolean;
}

/**
 * Capacity with its repair, the Rectify-Router ("Turn Waste into Worth", Zeng et al. 2024): what top-k routing drops goes
 * elsewhere, and what would be padding is filled.
 *
 * 1. {@link limitCapacity}.
 * 2. Intra-device rectification: a dropped route goes to the expert of the highest score among those on the token's own
 *    device that the token does not go to yet, whether it is full or not: no data travels between devices. Its weight is
 *    that expert's score.
 * 3. Fill-in rectification: an expert with room takes, by falling score, tokens that do not go to it yet, with their score
 *    as weight. Where a token is in column `topK + i` of the result is its i-th such route.
 *
 * Weights are scores as `scores` has them, not divided by their sum: divide them by what the router divides by. The paper's, by its
 * abstract and the caption of figure 2 (its formulas could not be compared): dropped tokens go to experts of their own device,
 * padding is replaced by tokens of high routing scores, both may be combined. This library's: that experts beyond their capacity
 * take rectified tokens, the next best where several routes of a token are dropped, which expert chooses first, the weights. Of equals
 * the lower expert, the lower token first.
 *
 * @returns indices and weights `[tokens, topK + most fill-ins of a token]`; `dropped` counts what stays dropped
 * @throws as {@link limitCapacity}; `BL_NON_FINITE` (scores)
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
  checkOptions(
    op,
    options,
    new Set(['numExperts', 'capacity', 'by', 'scores', 'numDevices', 'intraDevice', 'fillIn']),
  );
  const { numExperts, capacity, by = 'position', numDevices = 1 } = options;
  checkInteger(op, 'numExperts', numExperts, 1, mostTokens);
  checkInteger(op, 'capacity', capacity, 0, mostTokens);
  checkInteger(op, 'numDevices', numDevices, 1, numExperts);
  checkChoice(op, 'by', by, ['position', 'probability']);
  if (numExperts % numDevices !== 0) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: numDevices is ${numDevices}, expected a divisor of ${numExperts} (numExperts)`,
    );
  }
  const values = routeValues(op, routes, numExperts);
  const scores = finiteMatrixOf(op, 'scores', options.scores);
  checkAxis(op, 'scores', options.scores, 0, values.tokens, 'indices.shape[0]');
  checkAxis(op, 'scores', options.scores, 1, numExperts, 'numExperts');
  const wanted = values.indices.map((e) => (e < 0 ? 0 : 1));
  let dropped = limit(op, values, numExperts, capacity, by);
  if (options.intraDevice ?? true) {
    dropped -= keepOnDevice(values, wanted, scores.values, numExperts, numDevices);
  }
  const result =
    (options.fillIn ?? true) ? fillIn(values, scores.values, numExperts, capacity) : values;
  return { ...makeRoutes(result), dropped };
}

function keepOnDevice(
  { indices, weights, tokens, topK }: RouteValues,
  wanted: Int32Array,
  scores: ArrayLike<number>,
  numExperts: number,
  numDevices: number,
): number {
  const size = numExperts / numDevices;
  let kept = 0;
  for (let t = 0; t < tokens; t++) {
    const device = Math.floor((t * numDevices) / tokens);
    for (let k = 0; k < topK; k++) {
      const route = t * topK + k;
      if (wanted[route] === 0 || (indices[route] as number) >= 0) continue;
      const own = indices.subarray(t * topK, (t + 1) * topK);
      let best = -1;
      for (let e = device * size; e < (device + 1) * size; e++) {
        if (own.includes(e)) continue;
        const score = scores[t * numExperts + e] as number;
        if (best < 0 || score > (scores[t * numExperts + best] as number)) best = e;
      }
      if (best < 0) continue;
      indices[route] = best;
      weights[route] = scores[t * numExperts + best] as number;
      kept++;
    }
  }
  return kept;
}

function fillIn(
  values: RouteValues,
  scores: ArrayLike<number>,
  numExperts: number,
  capacity: number,
): RouteValues {
  const { indices, weights, tokens, topK } = values;
  const counts = new Int32Array(numExperts);
  for (const e of indices) if (e >= 0) counts[e] = (counts[e] as number) + 1;
  const more: number[][] = Array.from({ length: tokens }, () => []);
  for (let e = 0; e < numExperts; e++) {
    const room = capacity - (counts[e] as number);
    if (room <= 0) continue;
    const score = (t: number) => scores[t * numExperts + e] as number;
    const others: number[] = [];
    for (let t = 0; t < tokens; t++) {
      if (!indices.subarray(t * topK, (t + 1) * topK).includes(e)) others.push(t);
    }
    others.sort((a, b) => score(b) - score(a) || a - b);
    for (const t of others.slice(0, room)) more[t]?.push(e);
  }
  const width = topK + more.reduce((most, own) => Math.max(most, own.length), 0);
  const result: RouteValues = {
    indices: new Int32Array(tokens * width).fill(-1),
    weights: new Float32Array(tokens * width),
    tokens,
    topK: width,
  };
  for (let t = 0; t < tokens; t++) {
    result.indices.set(indices.subarray(t * topK, (t + 1) * topK), t * width);
    result.weights.set(weights.subarray(t * topK, (t + 1) * topK), t * width);
    more[t]?.forEach((e, i) => {
      result.indices[t * width + topK + i] = e;
      result.weights[t * width + topK + i] = scores[t * numExperts + e] as number;
    });
  }
  return result;
}
