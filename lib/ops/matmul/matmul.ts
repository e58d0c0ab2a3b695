import { argumentError } from '../../errors.js';
import { native } from '../../native.js';
import type { QuantizedTensor } from '../../quantized_tensor.js';
import {
  type AsyncOptions,
  type Call,
  optionalTensorValues,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
  weightValues,
} from '../../run.js';
import { type FloatDType, outputTensor, type Tensor } from '../../tensor.js';
import { type Algorithm, algorithmId } from './algorithm.js';
import { PreparedActivations } from './prepared_activations.js';

/** How `matmul` computes; see {@link matmul}. */
export type Compute = 'f32' | 'i8' | 'bf16';
const computeIds: Record<Compute, number> = { f32: 0, i8: 1, bf16: 2 };

export interface MatmulOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** [N], added to every row of the result. */
  bias?: Tensor<'f32'>;
  /** Where to write, [..., M, N]; default: a new f32 tensor. */
  out?: Tensor<D>;
  /**
   * `'f32'` (default): activations as they are. `'i8'`: activations in int8 with a scale per 32, for
   * formats with integer codes (q8_0, q4_0, u, i, t2); other formats are computed in f32 all the same.
   */
  compute?: Compute;
  algorithm?: Algorithm;
}

/**
 * Matrix product with quantized weights: `c[m, n] = sum_k a[m, k] * b[n, k] + bias[n]`.
 *
 * With `compute: 'i8'` the activations of each group of 32 are rounded to 127 steps of the group's largest
 * value: the relative error is about 5.5e-3 on Gaussian activations; a group with one value a thousand times
 * the rest loses the rest, other groups are not touched.
 *
 * @param a activations [..., M, K] (or [K]), f32, f16 or bf16; or what `prepareActivations` made of them, and
 *   then `compute` is `'i8'`
 * @param b weights [N, K] in any format
 * @returns c [..., M, N] (or [N]): `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT` (c overlaps an input), before
 *   anything is written
 *
 * @example
 * ```ts
 * const w = quantize(new Tensor('f32', [1, 0, 0, 0, 1, 0], [2, 3]), 'u8_row');
 * const x = new Tensor('f32', [5, 6, 7], [1, 3]);
 * matmul(x, w).toArray(); // about [5, 6]
 * ```
 */
export function matmul<D extends FloatDType = 'f32'>(
  a: Tensor<FloatDType> | PreparedActivations,
  b: QuantizedTensor,
  options: MatmulOptions<D> = {},
): Tensor<D> {
  return run(prepare(a, b, options));
}

/** {@link matmul} on a worker thread. */
export function matmulAsync<D extends FloatDType = 'f32'>(
  a: Tensor<FloatDType> | PreparedActivations,
  b: QuantizedTensor,
  options: MatmulOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(a, b, options), options);
}

/** Name of the kernel that {@link matmul} would run, e.g. `matmul_i8_avx512`. */
export function matmulKernel(
  a: Tensor<FloatDType> | PreparedActivations,
  b: QuantizedTensor,
  options: MatmulOptions<FloatDType> = {},
): string | undefined {
  return native.matmulKernel(...prepare(a, b, options).values);
}

function prepare<D extends FloatDType>(
  a: Tensor<FloatDType> | PreparedActivations,
  b: QuantizedTensor,
  options: MatmulOptions<D>,
): Call<Tensor<D>> {
  const prepared = a instanceof PreparedActivations ? a : undefined;
  const compute = options.compute ?? (prepared === undefined ? 'f32' : 'i8');
  if (!Object.hasOwn(computeIds, compute)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `matmul: compute is ${JSON.stringify(compute)}, expected f32, i8 or bf16`,
    );
  }
  const algorithm = algorithmId('matmul', options.algorithm);
  const c = options.out ?? outputTensor(undefined, [...a.shape.slice(0, -1), b.rows]);
  return {
    op: 'matmul',
    values: [
      ...(a instanceof PreparedActivations ? [undefined, undefined] : tensorValues(a)),
      ...weightValues(b),
      ...optionalTensorValues(options.bias),
      ...tensorValues(c),
      computeIds[compute],
      algorithm,
      prepared?.bytes,
      runValue(options),
    ],
    result: c,
  };
}
