import { BitloomError } from '../errors.js';
import { type Format, formats } from '../generated.js';
import { dequantize, dequantizeAsync } from '../ops/quantize/dequantize.js';
import { type QuantizeMethod, quantize } from '../ops/quantize/quantize.js';
import { hasTensorScale, largestMagnitude, tensorScaleFor } from '../ops/quantize/tensor_scale.js';
import { QuantizedTensor, weightsBytes } from '../quantized_tensor.js';
import { type RunOptions, sequence } from '../run.js';
import { Tensor } from '../tensor.js';

/** How {@link requantize} encodes. */
export interface RequantizeOptions extends RunOptions {
  method?: QuantizeMethod;
  /** Table of 2^bits values, for the cb<bits> formats. */
  codebook?: Float32Array | readonly number[];
  /** Default: as `quantize` chooses it, for which the matrix is decoded once more. */
  tensorScale?: number;
  signal?: AbortSignal;
}

// f32 values of a block of rows: large enough that a visit to a worker thread (some 20 us) does not count, small
// enough to stay in the cache between decoding and encoding.
const blockValues = 2 ** 19;

/** Whether rows of `cols` weights fit the blocks of `format`. */
export function rowsFit(format: Format, cols: number): boolean {
  const info = formats[format];
  return info.kind !== 'block' || cols % info.blockElements === 0;
}

/**
 * The same matrix in another format, decoded and encoded a block of rows at a time on a worker thread: besides the
 * result it takes 2 MB (or one row), whatever the size of the matrix.
 *
 * @throws BitloomError `BL_INVALID_SHAPE` if rows do not fit the blocks of `format`; `BL_NON_FINITE`
 */
export async function requantize(
  input: QuantizedTensor,
  format: Format,
  options: RequantizeOptions = {},
): Promise<QuantizedTensor> {
  const { rows, cols } = input;
  const { method = 'minmax', codebook, tensorScale: _, signal, ...run } = options;
  if (input.layout !== 'canonical') {
    throw new BitloomError(
      'BL_INVALID_LAYOUT',
      `requantize: layout is ${input.layout}, expected canonical`,
    );
  }
  const tables = {
    ...(codebook === undefined ? {} : { codebook }),
    tensorScale: options.tensorScale ?? (await defaultTensorScale(input, format, options)),
  };
  const output = QuantizedTensor.empty(format, [rows, cols], tables);
  const blockRows = rowsAtOnce(input);
  const values = Tensor.zeros('f32', [blockRows, cols]);
  const outputRow = weightsBytes(format, 1, cols);
  try {
    for (let row = 0; row < rows; row += blockRows) {
      const count = Math.min(blockRows, rows - row);
      const from = rowsOf(input, row, count);
      const to = new QuantizedTensor(
        format,
        output.bytes.subarray(row * outputRow, (row + count) * outputRow),
        [count, cols],
        tables,
      );
      const part = count === blockRows ? values : values.slice(0, count);
      await sequence(
        () => {
          dequantize(from, { out: part, ...run });
          quantize(part, format, { out: to, method, ...run });
        },
        signal === undefined ? {} : { signal },
      );
    }
  } catch (error) {
    output.dispose();
    throw error;
  } finally {
    values.dispose();
  }
  return output;
}

function rowsAtOnce({ rows, cols }: QuantizedTensor): number {
  return Math.max(1, Math.min(rows, Math.floor(blockValues / Math.max(cols, 1))));
}

/** Rows [row, row + count) of a canonical matrix, as a view. */
function rowsOf(input: QuantizedTensor, row: number, count: number): QuantizedTensor {
  const { format, cols, codebook, tensorScale } = input;
  const bytes = weightsBytes(format, 1, cols);
  return new QuantizedTensor(
    format,
    input.bytes.subarray(row * bytes, (row + count) * bytes),
    [count, cols],
    { ...(codebook === undefined ? {} : { codebook }), tensorScale },
  );
}

/** The tensor scale that {@link requantize} gives a matrix in `format`: 1 but for formats that need one. */
export async function defaultTensorScale(
  input: QuantizedTensor,
  format: Format,
  { signal, isa, threads }: RequantizeOptions = {},
): Promise<number> {
  if (!hasTensorScale(format)) return 1;
  const run = {
    ...(isa === undefined ? {} : { isa }),
    ...(threads === undefined ? {} : { threads }),
  };
  const blockRows = rowsAtOnce(input);
  const values = Tensor.zeros('f32', [blockRows, input.cols]);
  let largest = 0;
  try {
    for (let row = 0; row < input.rows; row += blockRows) {
      const count = Math.min(blockRows, input.rows - row);
      const part = values.slice(0, count);
      await dequantizeAsync(rowsOf(input, row, count), {
        out: part,
        ...run,
        ...(signal === undefined ? {} : { signal }),
      });
      largest = Math.max(largest, largestMagnitude(part));
    }
  } finally {
    values.dispose();
  }
  return tensorScaleFor(largest);
}
