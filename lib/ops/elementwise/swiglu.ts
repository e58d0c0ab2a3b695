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

export interface SwigluOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** Where to write, the shape of gate; may be gate or up itself; default: a new f32 tensor. */
  out?: Tensor<D>;
}

/**
 * `silu(gate) * up`, `silu(x) = x / (1 + exp(-x))` (Shazeer 2020), of equal shapes.
 *
 * @param gate [...], f32, f16 or bf16
 * @param up the shape of gate, f32, f16 or bf16
 * @returns [...]: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT` (out overlaps an input in part),
 *   before anything is written
 *
 * @example
 * ```ts
 * swiglu(new Tensor('f32', [1, -1], [2]), new Tensor('f32', [2, 2], [2])).toArray(); // about [1.462, -0.538]
 * ```
 */
export function swiglu<D extends FloatDType = 'f32'>(
  gate: Tensor<FloatDType>,
  up: Tensor<FloatDType>,
  options: SwigluOptions<D> = {},
): Tensor<D> {
  return run(prepare(gate, up, options));
}

/** {@link swiglu} on a worker thread. */
export function swigluAsync<D extends FloatDType = 'f32'>(
  gate: Tensor<FloatDType>,
  up: Tensor<FloatDType>,
  options: SwigluOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(gate, up, options), options);
}

function prepare<D extends FloatDType>(
  gate: Tensor<FloatDType>,
  up: Tensor<FloatDType>,
  options: SwigluOptions<D>,
): Call<Tensor<D>> {
  checkTensor('swiglu', 'gate', gate);
  checkTensor('swiglu', 'up', up);
  checkObject('swiglu', 'options', options);
  const output = outputTensor('swiglu', options.out, gate.shape, gate);
  return {
    op: 'swiglu',
    values: [
      ...tensorValues(gate),
      ...tensorValues(up),
      ...tensorValues(output),
      runValue(options),
    ],
    result: output,
  };
}
