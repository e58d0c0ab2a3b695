import type { Format } from '../../generated.js';
import { type Layout, QuantizedTensor } from '../../quantized_tensor.js';
import {
  type AsyncOptions,
  type Call,
  type RunOptions,
  run,
  runAsync,
  runValue,
  weightValues,
} from '../../run.js';

export interface PackOptions extends RunOptions {
  /** Default: `'panel8'`, the layout that kernels read fastest. */
  layout?: Layout;
}

/**
 * Copies a weight matrix into another layout, both ways; same bytes, same size, other order.
 *
 * @param input [rows, cols] in any format and layout
 * @returns a new matrix [rows, cols] of the same format
 * @throws `BL_INVALID_LAYOUT`, `BL_OUT_OF_MEMORY`
 *
 * @example
 * ```ts
 * const packed = pack(quantize(weights, 'u4_g128')); // once, at load
 * const y = matmul(x, packed);
 * ```
 */
export function pack<F extends Format>(
  input: QuantizedTensor<F>,
  options: PackOptions = {},
): QuantizedTensor<F> {
  return run(prepare(input, options));
}

/** {@link pack} on a worker thread. */
export function packAsync<F extends Format>(
  input: QuantizedTensor<F>,
  options: PackOptions & AsyncOptions = {},
): Promise<QuantizedTensor<F>> {
  return runAsync(() => prepare(input, options), options);
}

function prepare<F extends Format>(
  input: QuantizedTensor<F>,
  options: PackOptions,
): Call<QuantizedTensor<F>> {
  const layout = options.layout ?? 'panel8';
  const { codebook } = input;
  const output = QuantizedTensor.empty(
    input.format,
    input.shape,
    codebook === undefined ? { layout } : { layout, codebook },
  );
  return {
    op: 'pack',
    values: [...weightValues(input), ...weightValues(output), runValue(options)],
    result: output,
  };
}
