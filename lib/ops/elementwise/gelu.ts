import { checkObject, checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import {
  type AsyncOptions,
  type Call,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
} from '../../run.js';
import { type FloatDType, outputTensor, type Tensor } from '../../tensor.js';

/** Which gelu: the exact one, or the tanh approximation that models were trained with. */
export type GeluApproximation = 'erf' | 'tanh';
const approximationIds: Record<GeluApproximation, number> = { erf: 0, tanh: 1 };

export interface GeluOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** Default `'erf'`. */
  approximation?: GeluApproximation;
  /** Where to write, the shape of x; may be x itself; default: a new f32 tensor. */
  out?: Tensor<D>;
}

/**
 * `x * Phi(x)`, `Phi(x) = (1 + erf(x / sqrt(2))) / 2` (Hendrycks and Gimpel 2016); with
 * `approximation: 'tanh'` `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`. `-Infinity` gives
 * NaN, as the formulas do.
 *
 * @param x [...], f32, f16 or bf16
 * @returns [...]: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT` (approximation; out overlaps x in
 *   part), before anything is written
 *
 * @example
 * ```ts
 * gelu(new Tensor('f32', [-1, 0, 1], [3])).toArray(); // about [-0.159, 0, 0.841]
 * ```
 */
export function gelu<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  options: GeluOptions<D> = {},
): Tensor<D> {
  return run(prepare(x, options));
}

/** {@link gelu} on a worker thread. */
export function geluAsync<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  options: GeluOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(x, options), options);
}

function prepare<D extends FloatDType>(
  x: Tensor<FloatDType>,
  options: GeluOptions<D>,
): Call<Tensor<D>> {
  checkTensor('gelu', 'x', x);
  checkObject('gelu', 'options', options);
  const approximation = options.approximation ?? 'erf';
  if (!Object.hasOwn(approximationIds, approximation)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `gelu: approximation is ${described(approximation)}, expected erf or tanh`,
    );
  }
  const output = outputTensor('gelu', options.out, x.shape, x);
  return {
    op: 'gelu',
    values: [
      ...tensorValues(x),
      ...tensorValues(output),
      approximationIds[approximation],
      runValue(options),
    ],
    result: output,
  };
}
