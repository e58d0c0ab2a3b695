import { checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { Format } from '../../generated.js';
import { formatInfo, type QuantizedTensor } from '../../quantized_tensor.js';
import { type AsyncOptions, sequence } from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import { type QuantizeMethod, quantize } from '../quantize/quantize.js';
import { type SumOptions, sumOfProducts, type Term } from './accumulate.js';
import type { OutputDType } from './options.js';

/** The columns of one width. */
export interface MixedSegment {
  readonly width: number;
  /** [N, columns of this width] */
  readonly weights: QuantizedTensor;
  /** Where they stand in the matrix: [columns of this width]. */
  readonly columns: Tensor<'i32'>;
}

/** A matrix [rows, cols] whose groups of columns have widths of their own; see {@link quantizeMixed}. */
export class MixedTensor {
  constructor(
    readonly rows: number,
    readonly cols: number,
    readonly groupSize: number,
    /** Bits of each group of `groupSize` columns. */
    readonly widths: Uint8Array,
    readonly segments: readonly MixedSegment[],
  ) {}

  get shape(): readonly [rows: number, cols: number] {
    return [this.rows, this.cols];
  }

  /** Bits per weight, scales and column numbers included. */
  get bits(): number {
    const bytes = this.segments.reduce(
      (sum, { weights, columns }) => sum + weights.bytes.byteLength + columns.bytes.byteLength,
      0,
    );
    return (bytes * 8) / Math.max(this.rows * this.cols, 1);
  }

  /** Lets go of the memory. */
  dispose(): void {
    for (const { weights, columns } of this.segments) {
      weights.dispose();
      columns.dispose();
    }
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Options of {@link quantizeMixed}. */
export interface QuantizeMixedOptions {
  /** Formats `u<width>z` with a zero point instead of `u<width>`. Default: false. */
  zeroPoint?: boolean;
  method?: QuantizeMethod;
}

/**
 * Quantizes groups of columns to widths of their own, as SliM-LLM (Huang et al. 2024) chooses them by salience.
 * Columns of one width are gathered into one matrix of format `u<width>_g<groupSize>`.
 *
 * @param x [N, K], f32, f16 or bf16, contiguous rows
 * @param widths [ceil(K / groupSize)], bits of each group of columns, 1 to 8
 * @param groupSize 32, 64, 128 or 256
 * @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE` (a width), `BL_INVALID_FORMAT` (groupSize)
 *
 * @example
 * ```ts
 * const w = quantizeMixed(weights, Uint8Array.of(4, 2, 2, 3), 128); // [N, 512]
 * const y = mixed(x, w);
 * ```
 */
export function quantizeMixed(
  x: Tensor<FloatDType>,
  widths: Uint8Array,
  groupSize: number,
  { zeroPoint = false, method = 'minmax' }: QuantizeMixedOptions = {},
): MixedTensor {
  if (x.rank !== 2) {
    throw argumentError('BL_INVALID_SHAPE', `quantizeMixed: x.rank is ${x.rank}, expected 2`);
  }
  const [rows, cols] = x.shape as [number, number];
  formatInfo(`u4_g${groupSize}`);
  const groups = Math.ceil(cols / groupSize);
  if (widths.length !== groups) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `quantizeMixed: widths has ${widths.length} entries, expected ${groups} (= ceil(x.shape[1] / groupSize))`,
    );
  }
  const bad = widths.findIndex((width) => width < 1 || width > 8);
  if (bad >= 0) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `quantizeMixed: widths[${bad}] is ${widths[bad]}, expected 1 to 8`,
    );
  }
  const segments = [...new Set(widths)]
    .sort((a, b) => a - b)
    .map((width) => {
      const columns = columnsOf(widths, width, groupSize, cols);
      const format = `u${width}${zeroPoint ? 'z' : ''}_g${groupSize}` as Format;
      const gathered = gather(x, columns);
      const weights = quantize(gathered, format, { method });
      gathered.dispose();
      return { width, weights, columns: new Tensor('i32', columns, [columns.length]) };
    });
  return new MixedTensor(rows, cols, groupSize, Uint8Array.from(widths), segments);
}

/** The columns of the groups that have `width`. */
function columnsOf(widths: Uint8Array, width: number, groupSize: number, cols: number): Int32Array {
  const columns: number[] = [];
  widths.forEach((own, group) => {
    const end = Math.min((group + 1) * groupSize, cols);
    for (let column = group * groupSize; own === width && column < end; column++)
      columns.push(column);
  });
  return Int32Array.from(columns);
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
  if (!(weights instanceof MixedTensor)) {
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
