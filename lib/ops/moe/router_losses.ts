import { checkObject } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import type { MoERoutes } from './moe_route.js';
import { checkAxis, checkInteger, finiteMatrixOf, routeValues } from './values.js';

/**
 * Router z-loss (ST-MoE, Zoph et al. 2022): the mean over tokens of `log(sum over experts of exp(logits))^2`. In float64;
 * 0 of no tokens.
 *
 * @param logits [tokens, experts] f32, f16 or bf16, finite
 * @throws `BL_NON_FINITE`, `BL_INVALID_SHAPE`
 *
 * @example
 * ```ts
 * routerZLoss(new Tensor('f32', [0, 0], [1, 2])); // log(2)^2 = 0.48...
 * ```
 */
export function routerZLoss(logits: Tensor<FloatDType>): number {
  const { values, rows, cols } = finiteMatrixOf('routerZLoss', 'logits', logits);
  if (rows === 0 || cols === 0) return 0;
  let total = 0;
  for (let t = 0; t < rows; t++) {
    let largest = Number.NEGATIVE_INFINITY;
    for (let e = 0; e < cols; e++) {
      largest = Math.max(largest, values[t * cols + e] as number);
    }
    let sum = 0;
    for (let e = 0; e < cols; e++) sum += Math.exp((values[t * cols + e] as number) - largest);
    total += (largest + Math.log(sum)) ** 2;
  }
  return total / rows;
}

// Above any model, so that lists of them fit memory.
const mostExperts = 2 ** 24;

/** What {@link RouterLoad} is as JSON. */
export interface RouterLoadState {
  version: 1;
  numExperts: number;
  tokens: number;
  /** Routes of tokens, to nowhere too. */
  routes: number;
  dropped: number;
  /** Routes to each expert. */
  counts: number[];
  /** Sum over tokens of each expert's score. */
  scores: number[];
  /** Sum over tokens of the entropy of their scores, in nats. */
  entropy: number;
}

/** How a router spreads tokens: see {@link RouterLoad.statistics}. */
export interface RouterStatistics {
  tokens: number;
  /** Tokens of each expert. */
  counts: number[];
  /** Standard deviation of the counts divided by their mean; 0 where nothing is routed. */
  loadCV: number;
  /** Largest count divided by the mean; 0 where nothing is routed. */
  maxLoad: number;
  /** Entropy of the counts, in nats: log(experts) when they are equal. */
  loadEntropy: number;
  /** Mean entropy of a token's scores, in nats: 0 for a router that is sure. */
  scoreEntropy: number;
  /** Routes that were dropped (-1). */
  dropped: number;
  /** Routes beyond the capacity, if one is given: what {@link limitCapacity} would drop. */
  overflow?: number;
}

/**
 * Counts of a router over any number of batches, for the load-balancing loss and for statistics. Loads of other machines,
 * as JSON, are merged by adding: then the loss is the global-batch form (Qiu et al. 2025, "Demons in the Detail"), with f
 * of all batches; of one batch alone it is the micro-batch form (Switch, Fedus et al. 2021). Gradients with these counts:
 * `balanceCounts` of `moeLayerForward`. Counts are exact up to 2^53.
 *
 * @example
 * ```ts
 * const scores = Tensor.zeros('f32', [2, 4]);
 * const routes = moeRoute(new Tensor('f32', [1, 3, 2, 0, 3, 1, 0, 2], [2, 4]), { topK: 2, scores });
 * const load = new RouterLoad(4);
 * load.add(routes, scores);
 * load.merge(JSON.parse(JSON.stringify(load))); // another machine's
 * load.balancingLoss(); // 1 when all experts are equally loaded
 * load.statistics().counts; // [2, 2, 2, 2]
 * ```
 */
export class RouterLoad {
  readonly numExperts: number;
  #state: RouterLoadState;

  /** @throws `BL_OUT_OF_RANGE` */
  constructor(numExperts: number) {
    checkInteger('RouterLoad', 'numExperts', numExperts, 1, mostExperts);
    this.numExperts = numExperts;
    const zeros = () => new Array<number>(numExperts).fill(0);
    this.#state = {
      version: 1,
      numExperts,
      tokens: 0,
      routes: 0,
      dropped: 0,
      counts: zeros(),
      scores: zeros(),
      entropy: 0,
    };
  }

  /** @throws as {@link RouterLoad.merge} */
  static fromJSON(state: RouterLoadState): RouterLoad {
    checkObject('RouterLoad', 'state', state);
    const load = new RouterLoad(state.numExperts);
    load.merge(state);
    return load;
  }

  /**
   * Adds a batch.
   *
   * @param scores [tokens, numExperts]: `scores` of {@link moeRoute}
   * @throws `BL_OUT_OF_RANGE` (an index, a score below 0), `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_NON_FINITE`,
   *   `BL_INVALID_ARGUMENT` (within a sequence, too), before anything is counted
   */
  add(routes: MoERoutes, scores: Tensor<FloatDType>): void {
    const op = 'RouterLoad.add';
    const { indices, tokens } = routeValues(op, routes, this.numExperts);
    const { values } = finiteMatrixOf(op, 'scores', scores);
    checkAxis(op, 'scores', scores, 0, tokens, 'indices.shape[0]');
    checkAxis(op, 'scores', scores, 1, this.numExperts, 'numExperts');
    for (let i = 0; i < tokens * this.numExperts; i++) {
      if ((values[i] as number) >= 0) continue;
      const at = `${Math.floor(i / this.numExperts)}, ${i % this.numExperts}`;
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `${op}: scores[${at}] is ${values[i]}, expected at least 0`,
      );
    }
    const own = this.#state;
    own.tokens += tokens;
    own.routes += indices.length;
    for (const e of indices) {
      if (e < 0) own.dropped++;
      else own.counts[e] = (own.counts[e] as number) + 1;
    }
    for (let t = 0; t < tokens; t++) {
      let total = 0;
      let weighted = 0;
      for (let e = 0; e < this.numExperts; e++) {
        const score = values[t * this.numExperts + e] as number;
        own.scores[e] = (own.scores[e] as number) + score;
        total += score;
        if (score > 0) weighted += score * Math.log(score);
      }
      // Of score / total, for scores that do not add up to 1 (sigmoid). Rounding may lead below 0.
      if (total > 0) own.entropy += Math.max(0, Math.log(total) - weighted / total);
    }
  }

  /** Adds what another has counted. @throws `BL_INVALID_ARGUMENT`, `BL_INVALID_SHAPE` */
  merge(other: RouterLoad | RouterLoadState): void {
    const op = 'RouterLoad.merge';
    checkObject(op, 'other', other);
    const state = 'toJSON' in other ? other.toJSON() : other;
    checkState(op, state, this.numExperts);
    const own = this.#state;
    for (const name of ['tokens', 'routes', 'dropped', 'entropy'] as const) {
      own[name] += state[name];
    }
    for (const name of ['counts', 'scores'] as const) {
      state[name].forEach((value, e) => {
        own[name][e] = (own[name][e] as number) + value;
      });
    }
  }

  /**
   * `numExperts * sum over experts of f * p`: f the part of the routes that goes to an expert (dropped ones do not count),
   * p its mean score. 1 when all is equal, numExperts when everything goes to one. 0 of nothing.
   */
  balancingLoss(): number {
    const { tokens, routes, dropped, counts, scores } = this.#state;
    const kept = routes - dropped;
    if (kept === 0) return 0;
    let sum = 0;
    counts.forEach((count, e) => {
      sum += (count / kept) * ((scores[e] as number) / tokens);
    });
    return this.numExperts * sum;
  }

  /** How the routes are spread; `overflow` for a capacity per expert over all that was added. */
  statistics({ capacity }: { capacity?: number } = {}): RouterStatistics {
    const { tokens, dropped, entropy, counts } = this.#state;
    const total = counts.reduce((sum, count) => sum + count, 0);
    const mean = total / this.numExperts;
    const variance = counts.reduce((sum, n) => sum + (n - mean) ** 2, 0) / this.numExperts;
    const parts = counts.filter((count) => count > 0).map((count) => count / total);
    const statistics: RouterStatistics = {
      tokens,
      counts: [...counts],
      loadCV: mean > 0 ? Math.sqrt(variance) / mean : 0,
      maxLoad: mean > 0 ? Math.max(...counts) / mean : 0,
      loadEntropy: parts.reduce((sum, part) => sum - part * Math.log(part), 0),
      scoreEntropy: tokens > 0 ? entropy / tokens : 0,
      dropped,
    };
    if (capacity !== undefined) {
      checkInteger('RouterLoad.statistics', 'capacity', capacity, 0, 2 ** 31 - 1);
      statistics.overflow = counts.reduce((sum, count) => sum + Math.max(0, count - capacity), 0);
    }
    return statistics;
  }

  /** The state as plain data, for {@link RouterLoad.fromJSON} and {@link RouterLoad.merge}. */
  toJSON(): RouterLoadState {
    const { counts, scores, ...rest } = this.#state;
    return { ...rest, counts: [...counts], scores: [...scores] };
  }
}

function checkState(op: string, state: RouterLoadState, numExperts: number): void {
  if (state.version !== 1) {
    throw argumentError('BL_INVALID_ARGUMENT', `${op}: version is ${state.version}, expected 1`);
  }
  if (state.numExperts !== numExperts) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: numExperts is ${state.numExperts}, expected ${numExperts}`,
    );
  }
  const valid = (value: unknown) => typeof value === 'number' && value >= 0 && value < 2 ** 53;
  const { tokens, routes, dropped, entropy, counts, scores } = state;
  const lists = Array.isArray(counts) && Array.isArray(scores);
  const numbers = lists ? [tokens, routes, dropped, entropy, ...counts, ...scores] : [];
  if (!lists || numbers.length !== 4 + 2 * numExperts || !numbers.every(valid)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: the state is not what RouterLoad.toJSON gives: ${numExperts} counts and scores, finite and at least 0`,
    );
  }
}
