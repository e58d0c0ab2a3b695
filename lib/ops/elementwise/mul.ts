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

export interface MulOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** Where to write, the shape of left; may be left or right itself; default: a new f32 tensor. */
  out?: Tensor<D>;
}

/**
 * `left * right`, element by element; a right of fewer axes is repeated. Rounded once in f32, and once more
 * for f16 and bf16.
 *
 * @param left [...], f32, f16 or bf16
 * @param right the shape of left, or a suffix of it (a single number has shape []), f32, f16 or bf16
 * @returns [...]: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT` (out overlaps an input in part),
 *   before anything is written
 *
 * @example
 * ```ts
 * mul(new Tensor('f32', [1, 2, 3, 4], [2, 2]), new Tensor('f32', [10, 20], [2])).toArray(); // [10, 40, 30, 80]
 * ```
 */
export function mul<D extends FloatDType = 'f32'>(
  left: Tensor<FloatDType>,
  right: Tensor<FloatDType>,
  options: MulOptions<D> = {},
): Tensor<D> {
  return run(prepare(left, right, options));
}

/** {@link mul} on a worker thread. */
export function mulAsync<D extends FloatDType = 'f32'>(
  left: Tensor<FloatDType>,
  right: Tensor<FloatDType>,
  options: MulOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(left, right, options), options);
}

function prepare<D extends FloatDType>(
  left: Tensor<FloatDType>,
  right: Tensor<FloatDType>,
  options: MulOptions<D>,
): Call<Tensor<D>> {
  checkTensor('mul', 'left', left);
  checkTensor('mul', 'right', right);
  checkObject('mul', 'options', options);
  const output = outputTensor('mul', options.out, left.shape, left);
  return {
    op: 'mul',
    values: [
      ...tensorValues(left),
      ...tensorValues(right),
      ...tensorValues(output),
      runValue(options),
    ],
    result: output,
  };
}
