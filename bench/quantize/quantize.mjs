// Encoding a matrix of weights, scales by the largest value.
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';
import { bytesOf, formats, shape } from './shared.mjs';

export function* cases(options) {
  const [rows, cols] = shape(options);
  for (const format of formats) {
    yield {
      family: 'quantize',
      op: 'quantize',
      case: `${rows}x${cols} minmax`,
      format,
      m: rows,
      n: cols,
      k: 0,
      cold: false,
      type: 'f32',
      bytes: 4 * rows * cols + bytesOf(format, [rows, cols]),
      operations: 2 * rows * cols, // at least a comparison and a product each
      prepare() {
        const input = gaussianTensor([rows, cols]);
        const out = bitloom.QuantizedTensor.empty(format, [rows, cols]);
        return {
          variants: 1,
          body: (run) => bitloom.quantize(input, format, { ...run, out }),
          /** What the format loses: decoded values against the input. */
          error: () => relativeError(bitloom.dequantize(out).data, input.data),
        };
      },
    };
  }
}
