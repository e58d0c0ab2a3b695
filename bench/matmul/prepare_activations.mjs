// Activations to int8 codes with a scale per 32, once for several products: one token and a prompt of a 4096-wide
// decoder; with the norm before it.
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';

export function* cases({ tiny }) {
  const k = tiny ? 64 : 4096;
  for (const m of tiny ? [1, 3] : [1, 256]) {
    for (const norm of [false, true]) yield prepareCase(m, k, norm);
  }
}

function prepareCase(m, k, norm) {
  return {
    family: 'matmul',
    op: 'prepare_activations',
    format: null,
    case: `${k}${norm ? ' rmsNorm' : ''}`,
    m,
    n: 0,
    k,
    cold: false,
    type: 'f32',
    bytes: m * k * (4 + 1) + (m * k) / 8 + (norm ? 4 * k : 0), // x read, codes and scales written
    operations: (norm ? 6 : 2) * m * k,
    prepare: () => prepare(m, k, norm),
  };
}

function prepare(m, k, norm) {
  const x = gaussianTensor([m, k]);
  const weight = gaussianTensor([k], 2);
  const options = norm ? { norm: { weight, epsilon: 1e-5 } } : {};
  const out = bitloom.prepareActivations(x, options);
  return {
    variants: 1,
    body: (run) => bitloom.prepareActivations(x, { ...run, ...options, out }),
    /** Of products with a matrix of 8 bits, against float64: what rounding to int8 loses. */
    error() {
      const next = gaussianTensor([64, k], 3);
      const b = bitloom.quantize(next, 'u8_g32');
      const decoded = bitloom.dequantize(b).data;
      const rows = norm ? bitloom.rmsNorm(x, weight, { epsilon: 1e-5 }).data : x.data;
      const values = bitloom.matmul(out, b, { compute: 'i8' }).data.subarray(0, 64);
      const reference = Array.from({ length: 64 }, (_, n) => {
        let sum = 0;
        for (let i = 0; i < k; i++) sum += rows[i] * decoded[n * k + i];
        return sum;
      });
      return relativeError(Array.from(values), reference);
    },
  };
}
