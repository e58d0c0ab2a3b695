import { checkObject, checkOptions, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { MoERoutes } from './moe_route.js';
import { checkChoice, checkInteger, makeRoutes, type RouteValues, routeValues } from './values.js';

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

/** What {@link limitCapacity} and `rectifyRoutes` give. */
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

/** Drops in place what `limitCapacity` drops; gives how many. @throws `BL_NON_FINITE` */
export function limit(
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
