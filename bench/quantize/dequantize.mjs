// Decoding a matrix of weights to f32.
import { weightBytes } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';
import { bytesOf, formats, shape } from './shared.mjs';

export function* cases(options) {
  const [rows, cols] = shape(options);
  for (const format of formats) {
    yield {
      family: 'quantize',
      op: 'dequantize',
      case: `${rows}x${cols}`,
      format,
      m: rows,
      n: cols,
      k: 0,
      cold: false,
      type: 'f32',
      bytes: 4 * rows * cols + bytesOf(format, [rows, cols]),
      operations: rows * cols,
      prepare() {
        const input = new bitloom.QuantizedTensor(format, weightBytes(format, rows, cols), [
          rows,
          cols,
        ]);
        const out = bitloom.Tensor.zeros('f32', [rows, cols]);
        return {
          variants: 1,
          body: (run) => bitloom.dequantize(input, { ...run, out }),
          /** Against the specification, the scalar kernels. */
          error: () => relativeError(out.data, bitloom.dequantize(input, { isa: 'scalar' }).data),
        };
      },
    };
  }
}
