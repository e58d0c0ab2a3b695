import { checkObject, checkTensor, checkWeights } from '../../arguments.js';
import type { QuantizedTensor } from '../../quantized_tensor.js';
import { type AsyncOptions, sequence } from '../../run.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import { type SumOptions, sumOfProducts } from './accumulate.js';
import type { OutputDType } from './options.js';

/** A matrix of signs between two vectors of scales. */
export interface OneBitWeights {
  /** [N, K], e.g. of format u1_row with scales of 1. */
  signs: QuantizedTensor;
  /** h [N], times the outputs. */
  rowScale: Tensor<'f32'>;
  /** g [K], times the activations. */
  columnScale: Tensor<'f32'>;
}

/**
 * A layer of OneBit (Xu et al. 2024): `y = (S (x * g)) * h`, S a matrix of signs, g and h vectors.
 *
 * @param x [..., M, K], f32, f16 or bf16
 * @returns [..., M, N]: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_ARGUMENT` if signs or a vector is missing; else as `matmul`
 *
 * @example
 * ```ts
 * const signs = quantize(new Tensor('f32', [1, -1, -1, -1], [2, 2]), 'u1_row');
 * const rowScale = new Tensor('f32', [2, 3], [2]);
 * const columnScale = new Tensor('f32', [10, 1], [2]);
 * oneBit(new Tensor('f32', [1, 4], [1, 2]), { signs, rowScale, columnScale }).toArray(); // [12, -42]
 * ```
 */
export function oneBit<D extends OutputDType = 'f32'>(
  x: Tensor<FloatDType>,
  weights: OneBitWeights,
  options: SumOptions<D> = {},
): Tensor<D> {
  checkObject('oneBit', 'weights', weights);
  const { signs, rowScale, columnScale } = weights;
  checkWeights('oneBit', 'weights.signs', signs);
  checkTensor('oneBit', 'weights.rowScale', rowScale);
  checkTensor('oneBit', 'weights.columnScale', columnScale);
  return sumOfProducts(x, [{ weights: signs, rowScale, columnScale }], options);
}

/** {@link oneBit} on a worker thread. */
export function oneBitAsync<D extends OutputDType = 'f32'>(
  x: Tensor<FloatDType>,
  weights: OneBitWeights,
  options: SumOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  const { signal, ...rest } = options;
  const body = (): Tensor<D> => oneBit(x, weights, rest as SumOptions<D>);
  return sequence(body, signal === undefined ? {} : { signal });
}
