import { checkObject, checkTensor, checkWeights, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { Format } from '../../generated.js';
import { finiteCodebook, formatInfo, QuantizedTensor } from '../../quantized_tensor.js';
import {
  type AsyncOptions,
  type Call,
  isRecording,
  optionalTensorValues,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
  weightValues,
} from '../../run.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import { hasTensorScale, largestMagnitude, tensorScaleFor } from './tensor_scale.js';

/** How scales are chosen; see {@link quantize}. */
export type QuantizeMethod = 'minmax' | 'mse';
const methodIds: Record<QuantizeMethod, number> = { minmax: 0, mse: 1 };

export interface QuantizeOptions<F extends Format = Format> extends RunOptions {
  /** Default: `'minmax'`. */
  method?: QuantizeMethod;
  /**
   * Tables of 2^bits finite values. cb<bits>: one, required. cbs<bits>: 1 to 256, of which each group gets the best;
   * default for 3 and 4 bits: the four of BitMoD. lut<bits>: one for each row, [rows, 2^bits], to be rounded to f16 or
   * bf16; default: tables searched for. Forbidden for others.
   */
  codebook?: Float32Array | readonly number[];
  /**
   * What the squared error of a weight counts, for lut<bits> formats only: [cols] (as the mean squares of activations)
   * or [rows, cols] (as SqueezeLLM's sensitivities). Finite, not negative. Default: 1. Of no effect with `codebook`.
   */
  importance?: Tensor<'f32'>;
  /**
   * What the decoded weights are multiplied by; positive. Default: 1, and for `nvfp4_g16` the largest
   * magnitude / (6 * 448), which puts the largest scale of a block at the top of E4M3.
   */
  tensorScale?: number;
  /** Where to write, of this format, canonical, [rows, cols]; default: a new matrix. */
  out?: QuantizedTensor<F>;
}

/**
 * Encodes a matrix into a weight format, each row on its own. Deterministic.
 *
 * `'minmax'`: a group's scale reaches its largest value; q4_0, q4_1, q5_0, q5_1, q8_0, tq1_0 and tq2_0
 * give the bytes of ggml's reference encoders. `'mse'`: scales and zero points are searched for the
 * least squared error, never larger than that of minmax, in 4 to 100 times the time. One-bit and
 * ternary groups take the mean magnitude as their scale under minmax; iq4_nl and the K types search under
 * both. Scales beyond f16 saturate at 65504; values whose scale underflows become zero. Formats with a power
 * of two as scale (bfp, e2m1 to e5m2, mxint8, mxfp4) clip the largest values of a group by up to a quarter
 * under minmax, as the OCP Microscaling specification has it. cbs formats take the table of least squared error in each
 * group; lut formats search for a table per row by k-means (Lloyd's iteration), under mse from two starts.
 *
 * @param input [rows, cols], f32, f16 or bf16, all finite
 * @returns `options.out`, or a new matrix [rows, cols]
 * @throws `BL_NON_FINITE` (with row and column), `BL_INVALID_FORMAT`, `BL_INVALID_SHAPE` (cols is no
 *   multiple of a block), `BL_INVALID_ARGUMENT`, `BL_OUT_OF_RANGE` and `BL_UNSUPPORTED` (importance), before anything
 *   is written
 *
 * @example
 * ```ts
 * const w = quantize(new Tensor('f32', weights, [4096, 4096]), 'u4_g128', { method: 'mse' });
 * const bitmod = quantize(new Tensor('f32', weights, [4096, 4096]), 'cbs3_g128');
 * ```
 */
export function quantize<F extends Format>(
  input: Tensor<FloatDType>,
  format: F,
  options: QuantizeOptions<F> = {},
): QuantizedTensor<F> {
  return run(prepare(input, format, options));
}

/** {@link quantize} on a worker thread. */
export function quantizeAsync<F extends Format>(
  input: Tensor<FloatDType>,
  format: F,
  options: QuantizeOptions<F> & AsyncOptions = {},
): Promise<QuantizedTensor<F>> {
  return runAsync(() => prepare(input, format, options), options);
}

function prepare<F extends Format>(
  input: Tensor<FloatDType>,
  format: F,
  options: QuantizeOptions<F>,
): Call<QuantizedTensor<F>> {
  checkTensor('quantize', 'input', input);
  checkObject('quantize', 'options', options);
  const method = options.method ?? 'minmax';
  if (!Object.hasOwn(methodIds, method)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `quantize: method is ${described(method)}, expected minmax or mse`,
    );
  }
  if (input.rank !== 2) {
    throw argumentError('BL_INVALID_SHAPE', `quantize: input.rank is ${input.rank}, expected 2`);
  }
  const { codebook, tensorScale, out, importance } = options;
  const byRow = formatInfo(format).kind === 'rowCodebook';
  if (out !== undefined) checkWeights('quantize', 'out', out);
  if (out !== undefined && out.format !== format) {
    throw argumentError(
      'BL_INVALID_FORMAT',
      `quantize: out.format is ${out.format}, expected ${format}`,
    );
  }
  if (out !== undefined && codebook !== undefined && !byRow) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      'quantize: codebook and out are both given, expected the codebook in out',
    );
  }
  if (out !== undefined && tensorScale !== undefined) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      'quantize: tensorScale and out are both given, expected the tensorScale in out',
    );
  }
  const [rows, cols] = input.shape as [number, number];
  const result =
    out ??
    QuantizedTensor.empty(format, [rows, cols], {
      ...(codebook === undefined || byRow ? {} : { codebook }),
      tensorScale: tensorScale ?? defaultTensorScale(input, format),
    });
  const [bytes, descriptor, tables] = weightValues(result);
  return {
    op: 'quantize',
    values: [
      ...tensorValues(input),
      bytes,
      descriptor,
      byRow && codebook !== undefined ? finiteCodebook('quantize', codebook) : tables,
      methodIds[method],
      ...optionalTensorValues('quantize', 'importance', importance),
      runValue(options),
    ],
    result,
  };
}

function defaultTensorScale(input: Tensor<FloatDType>, format: Format): number {
  if (!hasTensorScale(format)) return 1;
  if (isRecording()) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `quantize: within a sequence ${format} needs tensorScale (or out): the input may not have its values yet`,
    );
  }
  return tensorScaleFor(largestMagnitude(input));
}
