import { checkOptions, checkTensor } from '../../arguments.js';
import {
  type AsyncOptions,
  type Call,
  checkedTensorValues,
  run,
  runAsync,
  runValue,
  tensorValues,
} from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import { computeValue, flagValue, type ProductOptions } from './options.js';

/** Options of {@link groupedMatmul}. */
export interface GroupedMatmulOptions<D extends FloatDType = FloatDType> extends ProductOptions<D> {
  /** b is `[experts, k, n]`. Default false. */
  transposeB?: boolean;
}

const knownRows = new Set(['transposeB', 'compute', 'out', 'isa', 'threads', 'stream']);
const knownOuter = new Set(['compute', 'out', 'isa', 'threads', 'stream']);
const kinds = { rows: 0, outer: 1 };

/**
 * A product per expert, without padding: `out[r] = a[r] * b[e]^T` for the rows r of expert e, which are
 * `offsets[e]` to `offsets[e + 1] - 1`. Rows of no expert become zero. The weights are floats and are read as they lie;
 * for low-bit experts, packed once, see `moeForward`.
 *
 * Kernels are those of `matmul` for floats, so that results have the same bits on any number of threads, and in f32 at
 * every level but `scalar`, which adds up in double.
 *
 * @param a [rows, k] f32, f16 or bf16
 * @param b [experts, n, k] weights, f32, f16 or bf16; with `transposeB` [experts, k, n]
 * @param offsets [experts + 1], from {@link moePermute}
 * @returns [rows, n]
 * @throws `BL_OUT_OF_RANGE` (offsets that fall or lead outside), `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`,
 *   `BL_INVALID_ARGUMENT`, before anything is written
 *
 * @example
 * ```ts
 * const { rows, offsets } = moePermute(x, indices, { experts: 8 });
 * const h = groupedMatmul(rows, up, offsets); // up [8, ffn, hidden]
 * ```
 */
export function groupedMatmul<D extends FloatDType = 'f32'>(
  a: Tensor<FloatDType>,
  b: Tensor<FloatDType>,
  offsets: Tensor<'i32'>,
  options: GroupedMatmulOptions<D> = {},
): Tensor<D> {
  return run(prepareRows(a, b, offsets, options));
}

/** {@link groupedMatmul} on a worker thread. */
export function groupedMatmulAsync<D extends FloatDType = 'f32'>(
  a: Tensor<FloatDType>,
  b: Tensor<FloatDType>,
  offsets: Tensor<'i32'>,
  options: GroupedMatmulOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepareRows(a, b, offsets, options), options);
}

/**
 * What a product per expert adds up over its rows: `out[e] = sum over the rows r of expert e of a[r]^T * b[r]`. With the
 * gradient of {@link groupedMatmul}'s result as `a` and its rows as `b`: the gradient of its weights. An expert
 * without rows has zeros. Errors name `groupedMatmul`, whose native operator this is.
 *
 * @param a [rows, n] f32, f16 or bf16
 * @param b [rows, k] f32, f16 or bf16
 * @param offsets [experts + 1]
 * @returns [experts, n, k]
 * @throws as {@link groupedMatmul}
 *
 * @example
 * ```ts
 * const gradient = groupedOuter(outGradient, rows, offsets); // of weights [experts, n, k]
 * ```
 */
export function groupedOuter<D extends FloatDType = 'f32'>(
  a: Tensor<FloatDType>,
  b: Tensor<FloatDType>,
  offsets: Tensor<'i32'>,
  options: ProductOptions<D> = {},
): Tensor<D> {
  return run(prepareOuter(a, b, offsets, options));
}

/** {@link groupedOuter} on a worker thread. */
export function groupedOuterAsync<D extends FloatDType = 'f32'>(
  a: Tensor<FloatDType>,
  b: Tensor<FloatDType>,
  offsets: Tensor<'i32'>,
  options: ProductOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepareOuter(a, b, offsets, options), options);
}

function prepareRows<D extends FloatDType>(
  a: Tensor<FloatDType>,
  b: Tensor<FloatDType>,
  offsets: Tensor<'i32'>,
  options: GroupedMatmulOptions<D>,
): Call<Tensor<D>> {
  const op = 'groupedMatmul';
  checkTensor(op, 'a', a);
  checkTensor(op, 'b', b);
  checkTensor(op, 'offsets', offsets);
  checkOptions(op, options, knownRows);
  const transpose = flagValue(op, 'transposeB', options.transposeB);
  const shape = [a.shape[0] ?? 0, b.shape[transpose === 1 ? 2 : 1] ?? 0];
  return callOf(a, b, offsets, shape, kinds.rows, transpose, options);
}

function prepareOuter<D extends FloatDType>(
  a: Tensor<FloatDType>,
  b: Tensor<FloatDType>,
  offsets: Tensor<'i32'>,
  options: ProductOptions<D>,
): Call<Tensor<D>> {
  const op = 'groupedOuter';
  checkTensor(op, 'a', a);
  checkTensor(op, 'b', b);
  checkTensor(op, 'offsets', offsets);
  checkOptions(op, options, knownOuter);
  const shape = [Math.max((offsets.shape[0] ?? 0) - 1, 0), a.shape[1] ?? 0, b.shape[1] ?? 0];
  return callOf(a, b, offsets, shape, kinds.outer, 0, options);
}

function callOf<D extends FloatDType>(
  a: Tensor,
  b: Tensor,
  offsets: Tensor,
  shape: number[],
  kind: number,
  transpose: number,
  options: ProductOptions<D>,
): Call<Tensor<D>> {
  const op = 'groupedMatmul';
  const out = options.out ?? (Tensor.empty('f32', shape, a.device) as Tensor as Tensor<D>);
  return {
    op,
    values: [
      ...tensorValues(a),
      ...tensorValues(b),
      ...tensorValues(offsets),
      ...checkedTensorValues(op, 'out', out),
      kind,
      transpose,
      computeValue(op, options.compute, a, b),
      runValue(options),
    ],
    result: out,
  };
}
