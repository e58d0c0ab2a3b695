import { checkObject, checkWeights } from '../../arguments.js';
import type { QuantizedTensor } from '../../quantized_tensor.js';
import {
  type AsyncOptions,
  type Call,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
  weightValues,
} from '../../run.js';
import { type FloatDType, outputTensor, type Tensor } from '../../tensor.js';

export interface DequantizeOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** Where to write, [rows, cols]; default: a new f32 tensor. */
  out?: Tensor<D>;
}

/**
 * Decodes a weight matrix: exact in f32, rounded to nearest even into an f16 or bf16 `out`.
 *
 * @param input [rows, cols] in any format and layout
 * @returns `options.out`, or a new f32 tensor [rows, cols]
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT` (out overlaps input), before
 *   anything is written
 *
 * @example
 * ```ts
 * const values = dequantize(quantize(x, 'q8_0')).data; // a Float32Array close to x
 * ```
 */
export function dequantize<D extends FloatDType = 'f32'>(
  input: QuantizedTensor,
  options: DequantizeOptions<D> = {},
): Tensor<D> {
  return run(prepare(input, options));
}

/** {@link dequantize} on a worker thread. */
export function dequantizeAsync<D extends FloatDType = 'f32'>(
  input: QuantizedTensor,
  options: DequantizeOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(input, options), options);
}

function prepare<D extends FloatDType>(
  input: QuantizedTensor,
  options: DequantizeOptions<D>,
): Call<Tensor<D>> {
  checkWeights('dequantize', 'input', input);
  checkObject('dequantize', 'options', options);
  const output = outputTensor('dequantize', options.out, input.shape, input);
  return {
    op: 'dequantize',
    values: [...weightValues(input), ...tensorValues(output), runValue(options)],
    result: output,
  };
}
