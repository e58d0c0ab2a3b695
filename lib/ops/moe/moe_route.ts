import { checkNumber, checkOptions, checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import {
  type AsyncOptions,
  type Call,
  optionalTensorValues,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
} from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';

const scoringIds = { softmax: 0, softmaxChosen: 1, sigmoid: 2 };
const groupScoreIds = { max: 0, top2: 1 };

/** What a router's logits become: see {@link moeRoute}. */
export type MoEScoring = keyof typeof scoringIds;

/** Options of {@link moeRoute}. */
export interface MoERouteOptions extends RunOptions {
  /** Experts of a token, 1 to the number of experts. */
  topK: number;
  /** Default `'softmax'`. */
  scoring?: MoEScoring;
  /** Shape `[experts]`: added to scores when experts are chosen, not to their weights (Wang et al. 2024, DeepSeek-V3). */
  bias?: Tensor<'f32'>;
  /** Groups that experts are in, equally many in each (DeepSeek-V2). Default 1. */
  numGroups?: number;
  /** Groups whose experts count. Default: all. */
  topGroups?: number;
  /** What a group is worth: its best expert (DeepSeek-V2), or the sum of its two best (V3). Default `'max'`. */
  groupScore?: keyof typeof groupScoreIds;
  /** Whether weights are divided by their sum. Default false. */
  normalize?: boolean;
  /** Multiplies the weights. Default 1. */
  scale?: number;
  /** Shape `[tokens, experts]`: receives s of all experts; with `'softmaxChosen'` 0 of those that are not chosen. */
  scores?: Tensor<'f32'>;
  /** Where the result goes. Default: new tensors. */
  out?: MoERoutes;
}

/** Where tokens go. */
export interface MoERoutes {
  /** Shape `[tokens, topK]`: experts, best first. */
  indices: Tensor<'i32'>;
  /** Shape `[tokens, topK]` */
  weights: Tensor<'f32'>;
}

const known = new Set([
  'topK',
  'scoring',
  'bias',
  'numGroups',
  'topGroups',
  'groupScore',
  'normalize',
  'scale',
  'scores',
  'out',
  'isa',
  'threads',
]);

/**
 * Chooses the experts of each token (a mixture's router). With logits z, scores s and choices c of the experts:
 *
 * - `s = softmax(z)`; with `'sigmoid'` `1 / (1 + exp(-z))`; with `'softmaxChosen'` the softmax over the chosen alone,
 * - `c = s + bias`; without a bias the order is that of z,
 * - experts of the `topGroups` best groups count; the `topK` of the highest c are chosen, of equals the lower number,
 * - `weights = scale * s`, with `normalize` divided by their sum.
 *
 * | model | options |
 * | --- | --- |
 * | Mixtral | `{ topK: 2, scoring: 'softmaxChosen' }` |
 * | Qwen2-MoE, OLMoE | `{ topK: 8 }` |
 * | Qwen3-MoE | `{ topK: 8, normalize: true }` |
 * | Switch (Fedus et al. 2021) | `{ topK: 1 }` |
 * | DeepSeek-V2 | `{ topK: 6, numGroups: 8, topGroups: 3, scale: 16 }` |
 * | DeepSeek-V3 | `{ topK: 8, scoring: 'sigmoid', bias, numGroups: 8, topGroups: 4, groupScore: 'top2', normalize: true, scale: 2.5 }` |
 *
 * Numbers are computed in double and rounded once, with the same bits at every level; exp(x) counts as 0 for x < -708.
 *
 * @param logits [tokens, experts] f32, f16 or bf16; -infinity stands behind all others
 * @throws `BL_NON_FINITE` (NaN, +infinity, or a token with -infinity alone), `BL_OUT_OF_RANGE` (topK, groups),
 *   `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT`, before anything is written
 *
 * @example
 * ```ts
 * const logits = new Tensor('f32', [1, 3, 2, 0], [1, 4]);
 * const { indices, weights } = moeRoute(logits, { topK: 2, normalize: true });
 * indices.toArray(); // [1, 2]
 * weights.toArray(); // [0.731..., 0.268...]
 * ```
 */
export function moeRoute(logits: Tensor<FloatDType>, options: MoERouteOptions): MoERoutes {
  return run(prepare(logits, options));
}

/** {@link moeRoute} on a worker thread. */
export function moeRouteAsync(
  logits: Tensor<FloatDType>,
  options: MoERouteOptions & AsyncOptions,
): Promise<MoERoutes> {
  return runAsync(() => prepare(logits, options), options);
}

function idOf(name: string, value: string, ids: Record<string, number>): number {
  if (Object.hasOwn(ids, value)) return ids[value] as number;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `moeRoute: ${name} is ${described(value)}, expected ${Object.keys(ids).join(', ')}`,
  );
}

/** A whole number from 1 to `most`. */
function isWhole(value: unknown, most: number): boolean {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= most;
}

function prepare(logits: Tensor<FloatDType>, options: MoERouteOptions): Call<MoERoutes> {
  const op = 'moeRoute';
  checkTensor(op, 'logits', logits);
  checkOptions(op, options, known);
  const {
    topK,
    bias,
    numGroups = 1,
    topGroups = numGroups,
    normalize = false,
    scale = 1,
  } = options;
  const [tokens = 0, experts = 0] = logits.shape;
  // Other ranks the native call refuses.
  const isMatrix = logits.shape.length === 2;
  if (!isWhole(topK, isMatrix ? experts : Number.POSITIVE_INFINITY)) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: topK is ${described(topK)}, expected 1 to ${isMatrix ? experts : 'the number of experts'} (logits.shape[1])`,
    );
  }
  if (!isWhole(numGroups, 2 ** 31 - 1) || (isMatrix && experts % numGroups !== 0)) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: numGroups is ${described(numGroups)}, expected a divisor of ${isMatrix ? experts : 'the number of experts'} (logits.shape[1])`,
    );
  }
  if (!isWhole(topGroups, numGroups)) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: topGroups is ${described(topGroups)}, expected 1 to ${numGroups} (numGroups)`,
    );
  }
  if (typeof normalize !== 'boolean') {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: normalize is ${described(normalize)}, expected true or false`,
    );
  }
  checkNumber(op, 'scale', scale, 'a finite number', () => true); // which number, the native call checks
  const biasValues = optionalTensorValues(op, 'bias', bias);
  const scoreValues = optionalTensorValues(op, 'scores', options.scores);
  const indices = options.out?.indices ?? Tensor.empty('i32', [tokens, topK], logits.device);
  const weights = options.out?.weights ?? Tensor.empty('f32', [tokens, topK], logits.device);
  checkTensor(op, 'out.indices', indices);
  checkTensor(op, 'out.weights', weights);
  if (indices.shape.length === 2 && indices.shape[1] !== topK) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: out.indices.shape[1] is ${indices.shape[1]}, expected ${topK} (= topK)`,
    );
  }
  return {
    op,
    values: [
      ...tensorValues(logits),
      ...biasValues,
      ...tensorValues(indices),
      ...tensorValues(weights),
      ...scoreValues,
      idOf('scoring', options.scoring ?? 'softmax', scoringIds),
      numGroups,
      topGroups,
      idOf('groupScore', options.groupScore ?? 'max', groupScoreIds),
      normalize ? 1 : 0,
      scale,
      runValue(options),
    ],
    result: { indices, weights },
  };
}
