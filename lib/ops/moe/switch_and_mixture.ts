import { checkOptions } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import { type MoERoutes, moeRoute } from './moe_route.js';
import { checkAxis, checkInteger, emptyRoutes, makeRoutes } from './values.js';

/** Options of {@link switchAndMixture}. */
export interface SwitchAndMixtureOptions {
  /** Experts of a token, 1 to the experts of a group. */
  topK: number;
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
 * Followed is the two-level scheme as the paper's abstract gives it; the weights are the product of both levels'
 * probabilities, as in hierarchical mixtures (Shazeer et al. 2017, appendix B). Of equals the lower number first.
 *
 * @param switchLogits [tokens, groups] f32, f16 or bf16
 * @param logits [tokens, experts]: experts of group g are those from `g * experts / groups` on
 * @throws as {@link moeRoute}
 *
 * @example
 * ```ts
 * const groups = new Tensor('f32', [0, 1], [1, 2]);
 * const logits = new Tensor('f32', [9, 9, 0, 1], [1, 4]);
 * switchAndMixture(groups, logits, { topK: 1 }).indices.toArray(); // [3]
 * ```
 */
export function switchAndMixture(
  switchLogits: Tensor<FloatDType>,
  logits: Tensor<FloatDType>,
  options: SwitchAndMixtureOptions,
): MoERoutes {
  const op = 'switchAndMixture';
  checkOptions(op, options, new Set(['topK']));
  const group = moeRoute(switchLogits, { topK: 1 });
  // Refuses what is no matrix of logits.
  moeRoute(logits, { topK: 1 });
  const [tokens = 0, groups = 0] = switchLogits.shape;
  const experts = logits.shape[1] as number;
  checkAxis(op, 'logits', logits, 0, tokens, 'switchLogits.shape[0]');
  if (experts % groups !== 0) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: logits.shape[1] is ${experts}, expected a multiple of ${groups} (switchLogits.shape[1])`,
    );
  }
  const size = experts / groups;
  checkInteger(op, 'topK', options.topK, 1, size);
  const own = new Float32Array(tokens * size);
  const values = logits.toArray() as number[];
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
