import { checkOptions } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import { type MoERoutes, moeRoute } from './moe_route.js';
import {
  checkAxis,
  checkInteger,
  emptyRoutes,
  logitsOf,
  type Matrix,
  makeRoutes,
} from './values.js';

/** Options of {@link switchAndMixture}. */
export interface SwitchAndMixtureOptions {
  /** Experts of a token, 1 to the experts of a group. */
  topK: number;
  /** Groups, where there is one router for both levels: then `switchLogits` is undefined. */
  groups?: number;
}

/**
 * Hierarchical routing, Switch and Mixture (SAM; "Towards More Effective and Economic Sparsely-Activated Model", Jiang et
 * al. 2021): a switch router sends each token to one group of experts, those of one device, and a mixture router to
 * several experts in it, so that more experts cost no more communication.
 *
 * - `g = softmax(switchLogits)`, the group of the highest g,
 * - `m = softmax(logits)` over the experts of that group, the `topK` of the highest m,
 * - `weights = g[group] * m`.
 *
 * Without `switchLogits` one router does both, as in Hetu (PKU-DAIR/Hetu, `sam_gate`): g of a group is the sum of softmax(logits) over its
 * experts, so that weights are that softmax of all experts.
 *
 * The two levels within one device are the paper's abstract; its formulas could not be compared. With two routers the weights
 * are the product of both levels' probabilities, as in hierarchical mixtures (Shazeer et al. 2017, appendix B), which is this library's
 * choice. The losses are {@link switchAndMixtureLosses}. Of equals the lower number first.
 *
 * @param switchLogits [tokens, groups] f32, f16 or bf16; undefined: see above
 * @param logits [tokens, experts]: experts of group g are those from `g * experts / groups` on
 * @throws as {@link moeRoute}; `BL_INVALID_ARGUMENT` within a sequence: it reads values
 *
 * @example
 * ```ts
 * const groups = new Tensor('f32', [0, 1], [1, 2]);
 * const logits = new Tensor('f32', [9, 9, 0, 1], [1, 4]);
 * switchAndMixture(groups, logits, { topK: 1 }).indices.toArray(); // [3]
 * ```
 */
export function switchAndMixture(
  switchLogits: Tensor<FloatDType> | undefined,
  logits: Tensor<FloatDType>,
  options: SwitchAndMixtureOptions,
): MoERoutes {
  const op = 'switchAndMixture';
  checkOptions(op, options, new Set(['topK', 'groups']));
  return groupRoutes(op, switchLogits, logits, options);
}

/** {@link switchAndMixture} for `op`, which is in the errors. */
export function groupRoutes(
  op: string,
  switchLogits: Tensor<FloatDType> | undefined,
  logits: Tensor<FloatDType>,
  options: SwitchAndMixtureOptions,
): MoERoutes {
  const matrix = logitsOf(op, 'logits', logits);
  const { values, rows: tokens, cols: experts } = matrix;
  if (switchLogits !== undefined) logitsOf(op, 'switchLogits', switchLogits);
  if ((switchLogits === undefined) === (options.groups === undefined)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: expected one of switchLogits and options.groups`,
    );
  }
  const groups = switchLogits?.shape[1] ?? (options.groups as number);
  checkInteger(op, 'groups', groups, 1, experts);
  if (switchLogits !== undefined) {
    checkAxis(op, 'logits', logits, 0, switchLogits.shape[0] as number, 'switchLogits.shape[0]');
  }
  if (experts % groups !== 0) {
    const of = switchLogits === undefined ? 'groups' : 'switchLogits.shape[1]';
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: logits.shape[1] is ${experts}, expected a multiple of ${groups} (${of})`,
    );
  }
  const size = experts / groups;
  checkInteger(op, 'topK', options.topK, 1, size);
  const own = new Float32Array(tokens * size);
  const group = moeRoute(switchLogits ?? groupLogits(matrix, groups), { topK: 1 });
  for (let t = 0; t < tokens; t++) {
    const from = t * experts + (group.indices.data[t] as number) * size;
    for (let e = 0; e < size; e++) own[t * size + e] = values[from + e] as number;
  }
  const inner = moeRoute(new Tensor('f32', own, [tokens, size]), { topK: options.topK });
  const routes = emptyRoutes(tokens, options.topK);
  for (let i = 0; i < routes.indices.length; i++) {
    const t = Math.floor(i / options.topK);
    routes.indices[i] =
      (group.indices.data[t] as number) * size + (inner.indices.data[i] as number);
    routes.weights[i] = (group.weights.data[t] as number) * (inner.weights.data[i] as number);
  }
  return makeRoutes(routes);
}

/**
 * ln of the sum of exp(logit) over the experts of each group, less the token's largest logit: its softmax is the groups' sums of the
 * softmax over all.
 */
function groupLogits({ values, rows, cols }: Matrix, groups: number): Tensor<'f32'> {
  const sums = new Float32Array(rows * groups);
  for (let t = 0; t < rows; t++) {
    const own = Array.from({ length: cols }, (_, e) => values[t * cols + e] as number);
    const most = own.reduce((a, b) => Math.max(a, b));
    for (let g = 0; g < groups; g++) {
      const group = own.slice((g * cols) / groups, ((g + 1) * cols) / groups);
      sums[t * groups + g] = Math.log(group.reduce((sum, z) => sum + Math.exp(z - most), 0));
    }
  }
  return new Tensor('f32', sums, [rows, groups]);
}
