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

export interface SiluOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** Where to write, the shape of x; may be x itself; default: a new f32 tensor. */
  out?: Tensor<D>;
}

/**
 * `x / (1 + exp(-x))`, also called swish. `-Infinity` gives NaN, as the formula does.
 *
 * @param x [...], f32, f16 or bf16
 * @returns [...]: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT` (out overlaps x in part), before
 *   anything is written
 *
 * @example
 * ```ts
 * silu(new Tensor('f32', [-1, 0, 1], [3])).toArray(); // about [-0.269, 0, 0.731]
 * ```
 */
export function silu<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  options: SiluOptions<D> = {},
): Tensor<D> {
  return run(prepare(x, options));
}

/** {@link silu} on a worker thread. */
export function siluAsync<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  options: SiluOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(x, options), options);
}

function prepare<D extends FloatDType>(
  x: Tensor<FloatDType>,
  options: SiluOptions<D>,
): Call<Tensor<D>> {
  checkTensor('silu', 'x', x);
  checkObject('silu', 'options', options);
  const output = outputTensor('silu', options.out, x.shape, x);
  return {
    op: 'silu',
    values: [...tensorValues(x), ...tensorValues(output), runValue(options)],
    result: output,
  };
}
