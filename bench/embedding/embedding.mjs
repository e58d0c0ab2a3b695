// Rows of a table of 32000 x 4096 weights: one token and a prompt.
import { uniform, weightBytes } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';

export function* cases({ tiny }) {
  const [vocabulary, cols] = tiny ? [32, 256] : [32000, 4096];
  for (const format of ['q4_0', 'q8_0', 'f16']) {
    for (const m of tiny ? [1] : [1, 256]) {
      const rowBytes = bitloom.QuantizedTensor.empty(format, [1, cols]).bytes.length;
      yield {
        family: 'embedding',
        op: 'embedding',
        case: `${vocabulary}x${cols}`,
        format,
        m,
        n: cols,
        k: 0,
        cold: false,
        type: 'f32',
        bytes: m * (rowBytes + 4 * cols),
        operations: m * cols,
        prepare: () => prepare(format, vocabulary, cols, m),
      };
    }
  }
}

function prepare(format, vocabulary, cols, m) {
  const table = new bitloom.QuantizedTensor(format, weightBytes(format, vocabulary, cols), [
    vocabulary,
    cols,
  ]);
  const next = uniform(5);
  const ids = Int32Array.from({ length: m }, () => Math.floor(next() * vocabulary));
  const out = bitloom.Tensor.zeros('f32', [m, cols]);
  const rowBytes = table.bytes.length / vocabulary;
  return {
    variants: 1,
    body: (run) => bitloom.embedding(table, new bitloom.Tensor('i32', ids, [m]), { ...run, out }),
    /** The first row, against its decoding by the scalar kernels. */
    error() {
      const bytes = table.bytes.subarray(ids[0] * rowBytes, (ids[0] + 1) * rowBytes);
      const row = new bitloom.QuantizedTensor(format, bytes, [1, cols]);
      return relativeError(out.data, bitloom.dequantize(row, { isa: 'scalar' }).data);
    },
  };
}
