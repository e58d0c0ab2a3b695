import { checkObject, checkTensor } from '../../arguments.js';
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
import { type FloatDType, outputTensor, type Tensor } from '../../tensor.js';

export interface RmsNormOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** Added to the mean square; finite, at least 0; default 1e-5. */
  epsilon?: number;
  /** Where to write, the shape of x; may be x itself; default: a new f32 tensor. */
  out?: Tensor<D>;
}

/**
 * `x / sqrt(mean(x^2) + epsilon) * weight` over the last axis (Zhang and Sennrich 2019).
 *
 * A row with an infinity gives 0 for its finite elements and NaN for the infinite ones; a row with NaN
 * gives NaN.
 *
 * @param x [..., D], f32, f16 or bf16
 * @param weight [D], f32, f16 or bf16, contiguous; undefined: ones
 * @returns [..., D]: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT` (epsilon; out overlaps weight, or x
 *   in part), before anything is written
 *
 * @example
 * ```ts
 * rmsNorm(new Tensor('f32', [3, -3, 3, -3], [1, 4])).toArray(); // about [1, -1, 1, -1]
 * ```
 */
export function rmsNorm<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  weight?: Tensor<FloatDType>,
  options: RmsNormOptions<D> = {},
): Tensor<D> {
  return run(prepare(x, weight, options));
}

/** {@link rmsNorm} on a worker thread. */
export function rmsNormAsync<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  weight?: Tensor<FloatDType>,
  options: RmsNormOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(x, weight, options), options);
}

function prepare<D extends FloatDType>(
  x: Tensor<FloatDType>,
  weight: Tensor<FloatDType> | undefined,
  options: RmsNormOptions<D>,
): Call<Tensor<D>> {
  checkTensor('rmsNorm', 'x', x);
  checkObject('rmsNorm', 'options', options);
  const output = outputTensor('rmsNorm', options.out, x.shape, x);
  return {
    op: 'rmsNorm',
    values: [
      ...tensorValues(x),
      ...optionalTensorValues('rmsNorm', 'weight', weight),
      ...tensorValues(output),
      options.epsilon ?? 1e-5,
      runValue(options),
    ],
    result: output,
  };
}
