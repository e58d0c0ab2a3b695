// Sums of several products, written once: what the compositions of this folder share.
import { argumentError } from '../../errors.js';
import type { QuantizedTensor } from '../../quantized_tensor.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import { matmul } from './matmul.js';
import type { MatmulOptions, OutputDType } from './options.js';

/** Options of {@link MatmulOptions} that apply to a sum of products as to one product. */
export type SumOptions<D extends OutputDType = 'f32'> = Omit<
  MatmulOptions<D>,
  'scale' | 'rowScale' | 'columnScale' | 'columnOrder' | 'aScales' | 'batch'
>;

/** One product of a sum. */
export interface Term {
  weights: QuantizedTensor;
  scale?: number;
  rowScale?: Tensor<'f32'>;
  columnScale?: Tensor<'f32'>;
  columnOrder?: Tensor<'i32'>;
}

/**
 * `activation(sum of products + addend + bias + ...) + residual`: products add up in one f32 tensor, and the last call
 * finishes them. Every term has the same number of rows.
 */
export function sumOfProducts<D extends OutputDType>(
  x: Tensor<FloatDType>,
  terms: readonly Term[],
  options: SumOptions<D>,
): Tensor<D> {
  const last = terms.at(-1);
  if (last === undefined)
    throw argumentError('BL_INVALID_ARGUMENT', 'matmul: a sum of no products');
  const { isa, threads, compute, algorithm, tables, activationBits, activationGroup, addend } =
    options;
  const same = Object.fromEntries(
    Object.entries({
      isa,
      threads,
      compute,
      algorithm,
      tables,
      activationBits,
      activationGroup,
    }).filter(([, value]) => value !== undefined),
  ) as MatmulOptions;
  let sum: Tensor<FloatDType> | undefined = addend;
  let own: Tensor<'f32'> | undefined;
  for (const { weights, ...term } of terms.slice(0, -1)) {
    own ??= Tensor.zeros('f32', [...x.shape.slice(0, -1), weights.rows]);
    matmul(x, weights, {
      ...same,
      ...term,
      ...(sum === undefined ? {} : { addend: sum }),
      out: own,
    });
    sum = own;
  }
  const { weights, ...term } = last;
  return matmul(x, weights, { ...options, ...term, ...(sum === undefined ? {} : { addend: sum }) });
}
