import { checkObject, checkTensor } from '../../arguments.js';
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

export interface SoftmaxOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** Finite, not 0; default 1. */
  scale?: number;
  /** Where to write, the shape of x; may be x itself; default: a new f32 tensor. */
  out?: Tensor<D>;
}

/**
 * `exp(scale * x) / sum(exp(scale * x))` over the last axis, the largest element taken off first.
 *
 * `-Infinity` beside a finite element gives 0 (a mask). A row of only `-Infinity`, or with NaN or
 * `Infinity` (of `scale * x`) anywhere, gives NaN.
 *
 * @param x [..., D], f32, f16 or bf16
 * @returns [..., D]: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT` (scale; out overlaps x in part),
 *   before anything is written
 *
 * @example
 * ```ts
 * softmax(new Tensor('f32', [0, Math.log(3)], [1, 2])).toArray(); // about [0.25, 0.75]
 * ```
 */
export function softmax<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  options: SoftmaxOptions<D> = {},
): Tensor<D> {
  return run(prepare(x, options));
}

/** {@link softmax} on a worker thread. */
export function softmaxAsync<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  options: SoftmaxOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(x, options), options);
}

function prepare<D extends FloatDType>(
  x: Tensor<FloatDType>,
  options: SoftmaxOptions<D>,
): Call<Tensor<D>> {
  checkTensor('softmax', 'x', x);
  checkObject('softmax', 'options', options);
  const output = outputTensor('softmax', options.out, x.shape, x);
  return {
    op: 'softmax',
    values: [...tensorValues(x), ...tensorValues(output), options.scale ?? 1, runValue(options)],
    result: output,
  };
}
