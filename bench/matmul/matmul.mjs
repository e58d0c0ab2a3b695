// c[m, n] = sum_k a[m, k] * b[n, k]: the shapes of a 7-billion-parameter decoder.
import { coldBytes, copies, gaussianTensor, uniform, weightBytes } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';

const shapes = [
  [4096, 4096],
  [11008, 4096],
  [4096, 11008],
]; // N, K
const formats = [
  'q4_0',
  'q8_0',
  'u4_g128',
  'u2_g128',
  'u1_g128',
  't2_g256',
  'nf4_g64',
  'f16',
  'f32',
  'q4_k',
  'q6_k',
];
/** Formats whose codes are integers: only these have a path with int8 activations. */
const integerCodes = /^(i?t?q\d|u\d|i\d|t2)/;
/** A prompt of 256 tokens takes seconds in the unspecialised formats. */
const promptFormats = new Set(['q4_0', 'q8_0', 'u4_g128', 'u2_g128']);

/**
 * All cases, or with `quick` those of one shape and at most 32 rows; `shapes`, `formats` and `ms` replace the
 * usual ones, `cold` says whether M = 1 walks memory.
 */
export function* cases({ tiny = false, quick = false, cold = !tiny, ...own }) {
  for (const [n, k] of own.shapes ?? (tiny ? [[64, 256]] : quick ? shapes.slice(0, 1) : shapes)) {
    for (const format of own.formats ?? formats) {
      for (const m of own.ms ?? (tiny ? [1, 3] : quick ? [1, 8, 32] : [1, 8, 32, 256])) {
        if (own.ms === undefined && m === 256 && !promptFormats.has(format)) continue;
        for (const compute of integerCodes.test(format) ? ['i8', 'f32'] : ['f32']) {
          yield matmulCase({ m, n, k, format, compute, cold: m === 1 && cold });
        }
        if (format === 'q4_0' || format === 'q8_0') {
          yield matmulCase({
            m,
            n,
            k,
            format,
            compute: 'i8',
            cold: m === 1 && cold,
            layout: 'lanes16',
          });
        }
      }
    }
  }
}

function matmulCase({ m, n, k, format, compute, cold, layout = 'canonical' }) {
  const weights = bitloom.QuantizedTensor.empty(format, [1, k]).bytes.length * n;
  return {
    family: 'matmul',
    op: 'matmul',
    case: `${n}x${k} ${compute}${layout === 'canonical' ? '' : ` ${layout}`}`,
    format,
    m,
    n,
    k,
    cold,
    type: compute,
    bytes: weights + 4 * m * (k + n), // each weight and activation read once, each output written once
    operations: 2 * m * n * k,
    prepare: () =>
      prepare({
        m,
        n,
        k,
        format,
        compute,
        layout,
        variants: cold ? Math.ceil(coldBytes / weights) : 1,
      }),
  };
}

function prepare({ m, n, k, format, compute, layout, variants }) {
  const a = gaussianTensor([m, k]);
  const out = bitloom.Tensor.zeros('f32', [m, n]);
  const canonical = new bitloom.QuantizedTensor(format, weightBytes(format, n, k), [n, k]);
  const { bytes: packed } =
    layout === 'canonical' ? canonical : bitloom.pack(canonical, { layout });
  const weights = copies(packed, variants).map(
    (bytes) => new bitloom.QuantizedTensor(format, bytes, [n, k], { layout }),
  );
  return {
    variants,
    body: (run, variant) => bitloom.matmul(a, weights[variant], { ...run, compute, out }),
    algorithm: (run) => bitloom.matmulKernel(a, weights[0], { ...run, compute, out }),
    /** Of 64 outputs, against sums in float64 of the decoded weights. */
    error() {
      const next = uniform(7);
      const values = [];
      const reference = [];
      for (let i = 0; i < 64; i++) {
        const row = Math.floor(next() * m);
        const column = Math.floor(next() * n);
        values.push(out.data[row * n + column]);
        reference.push(exactOutput(a, canonical, row, column));
      }
      return relativeError(values, reference);
    },
  };
}

function exactOutput(a, weights, row, column) {
  const k = weights.cols;
  const rowBytes = weights.bytes.length / weights.rows;
  const bytes = weights.bytes.subarray(column * rowBytes, (column + 1) * rowBytes);
  const decoded = bitloom.dequantize(
    new bitloom.QuantizedTensor(weights.format, bytes, [1, k]),
  ).data;
  let sum = 0;
  for (let i = 0; i < k; i++) sum += a.data[row * k + i] * decoded[i];
  return sum;
}
