import { checkOptions } from '../../arguments.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import { type MoERoutes, moeRoute } from './moe_route.js';
import { normalAt } from './noise.js';
import { checkAxis, checkInteger, finiteMatrixOf } from './values.js';

/** Options of {@link noisyRoute}. */
export interface NoisyRouteOptions {
  /** Experts of a token. */
  topK: number;
  /** Of the noise: the same seed gives the same routes. 0 to 2^32 - 1. */
  seed: number;
  /** Number of the first token, so that parts of a batch get the noise that they get in the whole. Default 0. */
  firstToken?: number;
}

/**
 * Noisy top-k gating (Shazeer et al. 2017, equations 3 to 5):
 *
 * - `h[t, e] = logits[t, e] + normal(seed, t, e) * softplus(noiseLogits[t, e])`, softplus(z) = log(1 + exp(z)),
 * - `weights = softmax(h over the topK highest)`.
 *
 * The normal numbers depend on the seed, the token's number and the expert's, and on nothing else.
 *
 * @param logits [tokens, experts] f32, f16 or bf16: `x W_g`
 * @param noiseLogits [tokens, experts] f32, f16 or bf16: `x W_noise`
 * @throws as {@link moeRoute}; `BL_NON_FINITE` (-infinity too); `BL_INVALID_ARGUMENT` within a sequence: it reads values
 *
 * @example
 * ```ts
 * const logits = new Tensor('f32', [1, 3, 2, 0], [1, 4]);
 * const quiet = new Tensor('f32', new Float32Array(4).fill(-100), [1, 4]);
 * noisyRoute(logits, quiet, { topK: 2, seed: 1 }).indices.toArray(); // [1, 2], as without noise
 * ```
 */
export function noisyRoute(
  logits: Tensor<FloatDType>,
  noiseLogits: Tensor<FloatDType>,
  options: NoisyRouteOptions,
): MoERoutes {
  const op = 'noisyRoute';
  checkOptions(op, options, new Set(['topK', 'seed', 'firstToken']));
  const { topK, seed, firstToken = 0 } = options;
  checkInteger(op, 'seed', seed, 0, 2 ** 32 - 1);
  checkInteger(op, 'firstToken', firstToken, 0, 2 ** 31 - 1);
  const clean = finiteMatrixOf(op, 'logits', logits);
  const noise = finiteMatrixOf(op, 'noiseLogits', noiseLogits);
  checkAxis(op, 'noiseLogits', noiseLogits, 0, clean.rows, 'logits.shape[0]');
  checkAxis(op, 'noiseLogits', noiseLogits, 1, clean.cols, 'logits.shape[1]');
  const noisy = new Float32Array(clean.rows * clean.cols);
  for (let i = 0; i < noisy.length; i++) {
    const z = noise.values[i] as number;
    const deviation = Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)));
    noisy[i] =
      (clean.values[i] as number) + normalAt(seed, firstToken * clean.cols + i) * deviation;
  }
  return moeRoute(new Tensor('f32', noisy, [clean.rows, clean.cols]), {
    topK,
    scoring: 'softmaxChosen',
  });
}
