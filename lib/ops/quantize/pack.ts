import { checkWeights } from '../../arguments.js';
import { argumentError } from '../../errors.js';
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

export interface PackOptions<F extends Format = Format> extends RunOptions {
  /** Default: that of `out`, else `'lanes16'`, which is what {@link matmul} reads. */
  layout?: Layout;
  /** Where to write, of the same format and shape. Laid over the input's own bytes, it packs in place. */
  out?: QuantizedTensor<F>;
}

/**
 * Copies a weight matrix into another layout, from any to any: the same weights to the last bit.
 *
 * @param input [rows, cols] in any format and layout
 * @returns `options.out`, or a new matrix [rows, cols] of the same format
 * @throws `BL_INVALID_LAYOUT`, `BL_INVALID_ARGUMENT` (out overlaps input in part), `BL_OUT_OF_MEMORY`
 *
 * @example
 * ```ts
 * const packed = pack(quantize(weights, 'u4_g128')); // once, at load
 * const y = matmul(x, packed);
 * ```
 */
export function pack<F extends Format>(
  input: QuantizedTensor<F>,
  options: PackOptions<F> = {},
): QuantizedTensor<F> {
  return run(prepare(input, options));
}

/** {@link pack} on a worker thread. */
export function packAsync<F extends Format>(
  input: QuantizedTensor<F>,
  options: PackOptions<F> & AsyncOptions = {},
): Promise<QuantizedTensor<F>> {
  return runAsync(() => prepare(input, options), options);
}

function prepare<F extends Format>(
  input: QuantizedTensor<F>,
  options: PackOptions<F>,
): Call<QuantizedTensor<F>> {
  checkWeights('pack', 'input', input);
  const { out } = options;
  const layout = options.layout ?? out?.layout ?? 'lanes16';
  const { codebook, tensorScale } = input;
  if (out !== undefined && out.layout !== layout) {
    throw argumentError(
      'BL_INVALID_LAYOUT',
      `pack: out.layout is ${out.layout}, expected ${layout} (= layout)`,
    );
  }
  const output =
    out ??
    QuantizedTensor.empty(
      input.format,
      input.shape,
      codebook === undefined ? { layout, tensorScale } : { layout, codebook, tensorScale },
    );
  if (output.tensorScale !== tensorScale) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `pack: out.tensorScale is ${output.tensorScale}, expected ${tensorScale} (= input.tensorScale)`,
    );
  }
  return {
    op: 'pack',
    values: [...weightValues(input), ...weightValues(output), runValue(options)],
    result: output,
  };
}
