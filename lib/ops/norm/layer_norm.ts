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

export interface LayerNormOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** Added to the variance; finite, at least 0; default 1e-5. */
  epsilon?: number;
  /** Where to write, the shape of x; may be x itself; default: a new f32 tensor. */
  out?: Tensor<D>;
}

/**
 * `(x - mean) / sqrt(variance + epsilon) * weight + bias` over the last axis (Ba et al. 2016), the variance
 * being `mean((x - mean)^2)`, in two passes.
 *
 * A row with an infinity or NaN gives NaN.
 *
 * @param x [..., D], f32, f16 or bf16
 * @param weight [D], f32, f16 or bf16, contiguous; undefined: ones
 * @param bias [D], f32, f16 or bf16, contiguous; undefined: zeros
 * @returns [..., D]: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT` (epsilon; out overlaps weight or
 *   bias, or x in part), before anything is written
 *
 * @example
 * ```ts
 * layerNorm(new Tensor('f32', [1, 3, 1, 3], [1, 4])).toArray(); // about [-1, 1, -1, 1]
 * ```
 */
export function layerNorm<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  weight?: Tensor<FloatDType>,
  bias?: Tensor<FloatDType>,
  options: LayerNormOptions<D> = {},
): Tensor<D> {
  return run(prepare(x, weight, bias, options));
}

/** {@link layerNorm} on a worker thread. */
export function layerNormAsync<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  weight?: Tensor<FloatDType>,
  bias?: Tensor<FloatDType>,
  options: LayerNormOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(x, weight, bias, options), options);
}

function prepare<D extends FloatDType>(
  x: Tensor<FloatDType>,
  weight: Tensor<FloatDType> | undefined,
  bias: Tensor<FloatDType> | undefined,
  options: LayerNormOptions<D>,
): Call<Tensor<D>> {
  checkTensor('layerNorm', 'x', x);
  checkObject('layerNorm', 'options', options);
  const output = outputTensor('layerNorm', options.out, x.shape, x);
  return {
    op: 'layerNorm',
    values: [
      ...tensorValues(x),
      ...optionalTensorValues('layerNorm', 'weight', weight),
      ...optionalTensorValues('layerNorm', 'bias', bias),
      ...tensorValues(output),
      options.epsilon ?? 1e-5,
      runValue(options),
    ],
    result: output,
  };
}
