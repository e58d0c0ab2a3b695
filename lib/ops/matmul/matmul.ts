import { checkOptions, checkTensor } from '../../arguments.js';
import { native } from '../../native.js';
import type { QuantizedTensor } from '../../quantized_tensor.js';
import {
  type AsyncOptions,
  type Call,
  checkedTensorValues,
  checkedWeightValues,
  optionalTensorValues,
  run,
  runAsync,
  runValue,
} from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import type { MatmulOptions, OutputDType } from './options.js';
import { PreparedActivations } from './prepared_activations.js';
import {
  algorithmId,
  computeId,
  defaultCompute,
  isGated,
  optionNames,
  optionValues,
} from './values.js';

/**
 * Matrix product with quantized weights: `c[m, n] = sum_k a[m, k] * b[n, k] + bias[n]`, and what
 * {@link MatmulOptions} adds to it before the result is written, in f32 and in this order:
 * `activation(product * rowScale * scale + addend + bias + lowRank + outliers) + residual`.
 *
 * With `compute: 'i8'` the activations of each group of 32 are rounded to 127 steps of the group's largest
 * value: the relative error is about 5.5e-3 on Gaussian activations; a group with one value a thousand times
 * the rest loses the rest, other groups are not touched. Algorithm `tile`, which `auto` takes for many rows, rounds
 * activations and most weights to 127 steps of the largest of 512: 6e-3 on even and 1.2e-2 on Gaussian data; rows for
 * which that would be more than 1.8e-2 are computed in bf16 (3e-3).
 *
 * @param a activations [..., M, K] (or [K]), f32, f16 or bf16, or i8 with `aScales`; or what
 *   `prepareActivations` made of them, without `aScales`, `columnScale`, `columnOrder`, `lowRank`, `adapters`,
 *   `outliers` and `batch`. Compute is i8 by default with codes and prepared activations, and must be with the latter
 * @param b weights [N, K] in any format
 * @returns c [..., M, N] (or [N]): `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_LAYOUT`, `BL_INVALID_ARGUMENT` (an option that is not
 *   known or of another type; options that do not go together; c overlaps an input), `BL_OUT_OF_RANGE` (an index, a
 *   code of -128), `BL_NON_FINITE` (`scale`, `lowRank.scale`), `BL_UNSUPPORTED`, before anything is written
 *
 * @example
 * ```ts
 * const w = quantize(new Tensor('f32', [1, 0, 0, 0, 1, 0], [2, 3]), 'u8_row');
 * const x = new Tensor('f32', [5, 6, 7], [1, 3]);
 * matmul(x, w).toArray(); // about [5, 6]
 * ```
 */
export function matmul<D extends OutputDType = 'f32'>(
  a: Tensor<FloatDType | 'i8'> | PreparedActivations,
  b: QuantizedTensor,
  options: MatmulOptions<D> = {},
): Tensor<D> {
  return run(prepare(a, b, options));
}

/** {@link matmul} on a worker thread. */
export function matmulAsync<D extends OutputDType = 'f32'>(
  a: Tensor<FloatDType | 'i8'> | PreparedActivations,
  b: QuantizedTensor,
  options: MatmulOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(a, b, options), options);
}

/**
 * Name of the kernel that {@link matmul} would run, e.g. `matmul_dequant_i8_avx512`; `undefined` if matmul would refuse the
 * call, and for tensors on devices, which may run several.
 */
export function matmulKernel(
  a: Tensor<FloatDType | 'i8'> | PreparedActivations,
  b: QuantizedTensor,
  options: MatmulOptions<OutputDType> = {},
): string | undefined {
  return native.matmulKernel(...prepare(a, b, options).values);
}

function prepare<D extends OutputDType>(
  a: Tensor<FloatDType | 'i8'> | PreparedActivations,
  b: QuantizedTensor,
  options: MatmulOptions<D>,
): Call<Tensor<D>> {
  const prepared = a instanceof PreparedActivations ? a : undefined;
  const given = a instanceof PreparedActivations ? undefined : a;
  if (prepared === undefined) checkTensor('matmul', 'a', given);
  const weights = checkedWeightValues('matmul', 'b', b);
  checkOptions('matmul', options, optionNames);
  const codes = prepared !== undefined || given?.dtype === 'i8';
  const algorithm = algorithmId(options.algorithm ?? 'auto');
  const compute = computeId(options.compute ?? (codes ? 'i8' : defaultCompute(options.algorithm)));
  const rest = optionValues(options, prepared);
  const c = options.out ?? (newOutput(a, b, options) as Tensor as Tensor<D>);
  return {
    op: 'matmul',
    values: [
      ...optionalTensorValues('matmul', 'a', given),
      ...weights,
      ...optionalTensorValues('matmul', 'bias', options.bias),
      ...checkedTensorValues('matmul', 'out', c),
      compute,
      algorithm,
      ...rest,
      runValue(options),
    ],
    result: c,
  };
}

/**
 * Bytes of memory that {@link matmul} takes for the time of the call, beside its result: packed activations and, for
 * each thread, columns of the result that are not finished. Whatever N, but for canonical (not packed) weights and
 * low-rank terms, which take some for a unit of it.
 *
 * @returns `undefined` if matmul would refuse the call, and for tensors on devices
 */
export function matmulWorkspaceBytes(
  a: Tensor<FloatDType | 'i8'> | PreparedActivations,
  b: QuantizedTensor,
  options: MatmulOptions<OutputDType> = {},
): number | undefined {
  return native.matmulWorkspaceBytes(...prepare(a, b, options).values);
}

function newOutput(
  a: Tensor<FloatDType | 'i8'> | PreparedActivations,
  b: QuantizedTensor,
  options: MatmulOptions<OutputDType>,
): Tensor<'f32'> {
  const parts = (options.batch ?? 1) * (isGated(options.activation) ? 2 : 1);
  return Tensor.empty('f32', [...a.shape.slice(0, -1), Math.floor(b.rows / parts)], b.device);
}
