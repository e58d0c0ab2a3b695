import { checkNumber, checkObject, checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { Format } from '../../generated.js';
import { columnsByWidth, isMixedTensor, MixedTensor } from '../../mixed_tensor.js';
import { QuantizedTensor } from '../../quantized_tensor.js';
import { type AsyncOptions, sequence } from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import { type QuantizeMethod, quantize } from '../quantize/quantize.js';
import { type SumOptions, sumOfProducts, type Term } from './accumulate.js';
import type { OutputDType } from './options.js';

/** Options of {@link quantizeMixed}. */
export interface QuantizeMixedOptions {
  /** Formats `u<width>z` with a zero point instead of `u<width>`. Default: false. */
  zeroPoint?: boolean;
  method?: QuantizeMethod;
}

/**
 * Quantizes groups of columns to widths of their own, as SliM-LLM (Huang et al. 2024) chooses them by salience.
 * Columns of one width are gathered into one matrix of format `u<width>_g<g>`: a group shares its scales if its size is
 * 32, 64, 128 or 256, and else has one per g columns, the largest of these sizes that divides it.
 *
 * @param x [N, K], f32, f16 or bf16
 * @param widths [ceil(K / groupSize)], bits of each group of columns, 1 to 8
 * @param groupSize a multiple of 32
 * @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE` (a width), `BL_INVALID_ARGUMENT` (groupSize)
 *
 * @example
 * ```ts
 * const w = quantizeMixed(weights, Uint8Array.of(4, 2, 2, 3), 128); // [N, 512]
 * const y = mixed(x, packWeights(w));
 * ```
 */
export function quantizeMixed(
  x: Tensor<FloatDType>,
  widths: Uint8Array,
  groupSize: number,
  options: QuantizeMixedOptions = {},
): MixedTensor {
  checkTensor('quantizeMixed', 'x', x);
  checkObject('quantizeMixed', 'options', options);
  const { zeroPoint = false, method = 'minmax' } = options;
  if (!(widths instanceof Uint8Array)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `quantizeMixed: widths is ${described(widths)}, expected a Uint8Array`,
    );
  }
  checkNumber(
    'quantizeMixed',
    'groupSize',
    groupSize,
    'a multiple of 32',
    (size) => size >= 32 && size % 32 === 0,
  );
  if (x.rank !== 2) {
    throw argumentError('BL_INVALID_SHAPE', `quantizeMixed: x.rank is ${x.rank}, expected 2`);
  }
  const [rows, cols] = x.shape as [number, number];
  const scaleGroup = [256, 128, 64, 32].find((size) => groupSize % size === 0) as number;
  const matrices = [...columnsByWidth('quantizeMixed', cols, groupSize, widths)].map(
    ([width, columns]) => {
      const format = `u${width}${zeroPoint ? 'z' : ''}_g${scaleGroup}` as Format;
      const gathered = gather(x, columns);
      const weights = quantize(gathered, format, { method });
      gathered.dispose();
      return weights;
    },
  );
  return new MixedTensor([rows, cols], groupSize, widths, matrices);
}

/** x[:, columns], new memory of the same dtype. */
function gather(x: Tensor<FloatDType>, columns: Int32Array): Tensor<FloatDType> {
  const rows = x.shape[0] as number;
  const [down, across] = x.strides as [number, number];
  const out = Tensor.zeros(x.dtype, [rows, columns.length]) as Tensor<FloatDType>;
  const from = x.data;
  const to = out.data;
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns.length; i++) {
      to[row * columns.length + i] = from[row * down + (columns[i] as number) * across] as number;
    }
  }
  return out;
}

/**
 * Matrix product with weights of mixed widths: a product per width, each with its own columns of x, added up.
 *
 * @param x [..., M, K], f32, f16 or bf16
 * @returns [..., M, N]: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE` if x has not as many columns as the weights; else as `matmul`
 */
export function mixed<D extends OutputDType = 'f32'>(
  x: Tensor<FloatDType>,
  weights: MixedTensor,
  options: SumOptions<D> = {},
): Tensor<D> {
  checkTensor('mixed', 'x', x);
  if (!isMixedTensor(weights)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `mixed: weights is ${described(weights)}, expected a MixedTensor`,
    );
  }
  if (x.shape.at(-1) !== weights.cols) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `mixed: x has ${x.shape.at(-1)} columns, expected ${weights.cols} (= weights.cols)`,
    );
  }
  const terms: Term[] = weights.segments.map((segment) => ({
    weights: segment.weights,
    columnOrder: segment.columns,
  }));
  // Without columns the rest of the sum is still due: bias, addend, residual.
  if (terms.length === 0) {
    terms.push({ weights: QuantizedTensor.empty('u4_g32', [weights.rows, 0]) });
  }
  return sumOfProducts(x, terms, options);
}

/** {@link mixed} on a worker thread. */
export function mixedAsync<D extends OutputDType = 'f32'>(
  x: Tensor<FloatDType>,
  weights: MixedTensor,
  options: SumOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  const { signal, ...rest } = options;
  const body = (): Tensor<D> => mixed(x, weights, rest as SumOptions<D>);
  return sequence(body, signal === undefined ? {} : { signal });
}
