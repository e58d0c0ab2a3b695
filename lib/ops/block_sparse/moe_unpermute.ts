import { checkOptions, checkTensor } from '../../arguments.js';
import {
  type AsyncOptions,
  type Call,
  checkedTensorValues,
  optionalTensorValues,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
} from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';

/** Options of {@link moeUnpermute}. */
export interface MoEUnpermuteOptions<D extends FloatDType = FloatDType> extends RunOptions {
  /** Shape `[tokens, topK]`: multiplies the rows. Default: rows as they are. */
  weights?: Tensor<'f32'>;
  /** Where the result goes, f32, f16 or bf16. Default: a new tensor of the rows' dtype. */
  out?: Tensor<D>;
}

const known = new Set(['weights', 'out', 'isa', 'threads', 'stream']);

/**
 * Brings rows back to their tokens: `out[t] = sum over s of weights[t, s] * rows[inverse[t, s]]`, in order of s, each
 * product and sum rounded to f32. An `inverse` of -1 counts as zero.
 *
 * @param rows [rows, hidden] f32, f16 or bf16
 * @param inverse [tokens, topK], from {@link moePermute}
 * @returns [tokens, hidden]
 * @throws `BL_OUT_OF_RANGE` (an index below -1 or not below the number of rows), `BL_INVALID_SHAPE`,
 *   `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT`, before anything is written
 *
 * @example
 * ```ts
 * const y = moeUnpermute(rows, inverse, { weights });
 * ```
 */
export function moeUnpermute<D extends FloatDType>(
  rows: Tensor<D>,
  inverse: Tensor<'i32'>,
  options: MoEUnpermuteOptions<D> = {},
): Tensor<D> {
  return run(prepare(rows, inverse, options));
}

/** {@link moeUnpermute} on a worker thread. */
export function moeUnpermuteAsync<D extends FloatDType>(
  rows: Tensor<D>,
  inverse: Tensor<'i32'>,
  options: MoEUnpermuteOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(rows, inverse, options), options);
}

function prepare<D extends FloatDType>(
  rows: Tensor<D>,
  inverse: Tensor<'i32'>,
  options: MoEUnpermuteOptions<D>,
): Call<Tensor<D>> {
  const op = 'moeUnpermute';
  checkTensor(op, 'rows', rows);
  checkTensor(op, 'inverse', inverse);
  checkOptions(op, options, known);
  const weights = optionalTensorValues(op, 'weights', options.weights);
  const shape = [inverse.shape[0] ?? 0, rows.shape.at(-1) ?? 0];
  const out = options.out ?? (Tensor.empty(rows.dtype, shape, rows.device) as unknown as Tensor<D>);
  return {
    op,
    values: [
      ...tensorValues(rows),
      ...tensorValues(inverse),
      ...weights,
      ...checkedTensorValues(op, 'out', out),
      runValue(options),
    ],
    result: out,
  };
}
