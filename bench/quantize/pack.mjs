// Changing the layout of weights from rows to panels of 16 rows. The floor: each byte read once and written once.
import { weightBytes } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';
import { bytesOf, shape } from './shared.mjs';

export function* cases(options) {
  const [rows, cols] = shape(options);
  for (const format of ['q4_0', 'q8_0', 'u4_g128', 'u2_g128', 'q4_k', 'f16']) {
    const bytes = 2 * bytesOf(format, [rows, cols]);
    yield {
      family: 'quantize',
      op: 'pack',
      case: `${rows}x${cols} lanes16`,
      format,
      m: rows,
      n: cols,
      k: 0,
      cold: false,
      type: 'f32',
      bytes,
      operations: 0, // only moves
      prepare() {
        const input = new bitloom.QuantizedTensor(format, weightBytes(format, rows, cols), [
          rows,
          cols,
        ]);
        const out = bitloom.pack(input);
        return {
          variants: 1,
          body: (run) => bitloom.pack(input, { ...run, out }),
          /** Decoded packed weights against the decoded original. */
          error: () => relativeError(bitloom.dequantize(out).data, bitloom.dequantize(input).data),
        };
      },
    };
  }
}
