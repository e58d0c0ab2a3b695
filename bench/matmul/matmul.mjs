// c[m, n] = sum_k a[m, k] * b[n, k]: the shapes of a 7-billion-parameter decoder.
import { coldBytes, copies, gaussianTensor, uniform, weightBytes } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';

const shapes = [
  [4096, 4096],
  [11008, 4096],
  [4096, 11008],
]; // N, K
// Widths of 1 to 16 bits, small and large groups, codebooks (one, by group, by row), K types.
const formats = [
  'u1_g128',
  't2_g128',
  'u2_g32',
  'u2_g128',
  'u3_g128',
  'cbs3_g128',
  'lut3_row',
  'q4_0',
  'u4_g128',
  'nf4_g64',
  'cbs4_g128',
  'lut4_row',
  'lut4_row_bf16',
  'mxfp4',
  'q5_0',
  'u6_g128',
  'q8_0',
  'i8_row',
  'q4_k',
  'q6_k',
  'f16',
  'bf16',
  'f32',
];
/** Formats whose codes are integers: only these have products in int8 for few rows. */
const integerCodes = /^(i?t?q\d|u\d|i\d|t2|mxfp4)/;
/** Of 256 rows and more: one of each kind. */
const promptFormats = new Set([
  'u1_g128',
  'u2_g32',
  'u3_g128',
  'q4_0',
  'u4_g128',
  'q8_0',
  'i8_row',
  'q4_k',
  'nf4_g64',
  'cbs4_g128',
  'lut4_row',
]);
/** What is also measured by each algorithm that can do it, and in canonical layout. */
const comparedFormats = new Set(['u1_g128', 'u2_g128', 't2_g128', 'u3_g128', 'q4_0']);

/**
 * All cases, or with `quick` those of one shape and at most 32 rows; `shapes`, `formats` and `ms` replace the
 * usual ones, `cold` says whether few rows walk memory.
 */
export function* cases({ tiny = false, quick = false, cold = !tiny, ...own }) {
  const usualMs = tiny ? [1, 3] : quick ? [1, 8, 32] : [1, 2, 4, 8, 16, 32, 256, 1024];
  for (const [n, k] of own.shapes ?? (tiny ? [[64, 256]] : quick ? shapes.slice(0, 1) : shapes)) {
    for (const format of own.formats ?? formats) {
      for (const m of own.ms ?? usualMs) {
        if (own.ms === undefined && m >= 256 && !promptFormats.has(format)) continue;
        const usual = { m, n, k, format, cold: m <= 32 && cold };
        const computes = integerCodes.test(format) ? ['i8', 'f32'] : ['f32'];
        if (m >= 32) computes.push('bf16');
        for (const compute of computes) yield matmulCase({ ...usual, compute });
        if (own.formats !== undefined || !comparedFormats.has(format)) continue;
        const algorithms =
          m <= 4 && format !== 'q4_0' ? ['lut', 'dequant'] : m >= 8 ? ['dequant', 'tile'] : [];
        for (const algorithm of algorithms)
          yield matmulCase({ ...usual, compute: 'i8', algorithm });
        if (m === 1) {
          yield matmulCase({ ...usual, compute: 'i8', layout: 'canonical' });
          if (cold) yield matmulCase({ ...usual, compute: 'i8', cold: false });
        }
      }
    }
  }
}

function matmulCase({ m, n, k, format, compute, cold, layout = 'lanes16', algorithm = 'auto' }) {
  const weights = bitloom.weightsBytes(format, n, k, layout);
  return {
    family: 'matmul',
    op: 'matmul',
    case: [
      `${n}x${k}`,
      compute,
      algorithm === 'auto' ? '' : algorithm,
      layout === 'lanes16' ? '' : layout,
      cold || m > 32 ? '' : 'warm',
    ]
      .filter((part) => part !== '')
      .join(' '),
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
        algorithm,
        variants: cold ? Math.ceil(coldBytes / weights) : 1,
      }),
  };
}

function prepare({ m, n, k, format, compute, layout, algorithm, variants }) {
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
    body: (run, variant) =>
      bitloom.matmul(a, weights[variant], { ...run, compute, algorithm, out }),
    algorithm: (run) => bitloom.matmulKernel(a, weights[0], { ...run, compute, algorithm, out }),
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
