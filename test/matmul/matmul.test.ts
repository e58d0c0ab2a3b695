import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Compute,
  type Format,
  formats,
  type Isa,
  machine,
  matmul,
  pack,
  type QuantizedTensor,
  Tensor,
} from '../../lib/index.js';
import { colsOf, formatNames, quantized, sampledFormats } from '../quantize/cases.js';
import { referenceMatmul, roundActivations } from '../reference/matmul.js';
import { gaussian } from '../reference/random.js';
import { decoded } from './cases.js';

const levels = machine().isas;
const computes: Compute[] = ['f32', 'i8'];
/** What all of this file is about; the other algorithms have files of their own. */
const algorithm = 'dequant';

/** Formats whose weights are integers, or entries of a table of integers, times a scale. */
function hasIntegerCodes(format: Format): boolean {
  return /^(iq|t?q|u|i|t|fp|bfp|e2m1_|e2m3_|mxint|mxfp|nvfp)\d?/.test(format);
}

/** Formats whose weights are a code times a scale, plus an offset of the group. */
const hasOffsets = (format: Format): boolean => /^[ui]\dz_|^q\d_1$|^q[245]_k$/.test(format);

/**
 * What rounding errors of i8 are relative to: codes and offset are multiplied by themselves, so in place of a weight
 * stands the range of its group, of which both are parts (a range that quantize makes holds 0).
 */
function ranges(b: QuantizedTensor, weights: Float64Array): Float64Array {
  const group = formats[b.format].groupSize || b.cols;
  return weights.map((_, i) => {
    const first = i - ((i % b.cols) % group);
    const last = Math.min(first + group, i - (i % b.cols) + b.cols);
    return 2 * weights.subarray(first, last).reduce((most, w) => Math.max(most, Math.abs(w)), 0);
  });
}

/**
 * Largest error relative to the sum of |products|. f32 kernels add in f32 (lanes of 8 or 16, chunks of
 * 256): at most about K / 16 roundings of 2^-24 each; the exact int8 sums of i8 leave the same.
 */
const bound = 2 ** -20;

function check(a: Float32Array, b: QuantizedTensor, m: number, compute: Compute, isa: Isa): void {
  const c = matmul(new Tensor('f32', a, [m, b.cols]), b, { compute, isa, algorithm }).data;
  const rounded =
    compute === 'i8' && hasIntegerCodes(b.format) ? roundActivations(a, m, b.cols) : a;
  const weights = decoded(b);
  const { values, magnitudes: products } = referenceMatmul(rounded, weights, m, b.rows, b.cols);
  const magnitudes =
    compute === 'i8' && hasOffsets(b.format)
      ? referenceMatmul(rounded, ranges(b, weights), m, b.rows, b.cols).magnitudes
      : products;
  for (let i = 0; i < values.length; i++) {
    const error = Math.abs((c[i] as number) - (values[i] as number));
    if (!(error <= bound * (magnitudes[i] as number) + 1e-36)) {
      expect.fail(
        `${b.format} ${compute} ${isa} m=${m} n=${b.rows} k=${b.cols}: c[${i}] is ${c[i]}, expected ${values[i]}`,
      );
    }
  }
}

describe('matmul', () => {
  it.each(levels)('equals the float64 reference in every format at level %s', (isa) => {
    let checked = 0;
    for (const format of sampledFormats) {
      for (const k of colsOf(format)) {
        const b = quantized(format, gaussian(9 * k, k), [9, k]);
        for (const compute of computes) {
          check(gaussian(3 * k, 7 + k), b, 3, compute, isa);
          checked++;
        }
      }
    }
    expect(checked).toBeGreaterThan(sampledFormats.length * 3);
  });

  it.each(levels)('takes any M, N, K at level %s', (isa) => {
    const some: Format[] = [
      'f32',
      'f16',
      'bf16',
      'q8_0',
      'q5_1',
      'iq4_nl',
      'q2_k',
      'q6_k',
      'cb3_g32',
      'cb7_g32',
      'cb8_row',
      'q4_0',
      'u3z_g32',
      'i5_g64',
      'u8z_row',
      'u1_g128',
      'i1_row',
      't2_g256',
      'nf4_row',
      'u7z_g32',
      'i7_row',
      'bfp5_g16',
      'e4m3_g8',
      'mxfp4',
      'nvfp4_g16',
    ];
    fc.assert(
      fc.property(
        fc.constantFrom(...some),
        fc.integer({ min: 1, max: 37 }),
        fc.integer({ min: 1, max: 45 }),
        fc.integer({ min: 1, max: 700 }),
        fc.constantFrom(...computes),
        fc.integer(),
        (format, m, n, anyK, compute, seed) => {
          const { kind, blockElements } = formats[format];
          const k = kind === 'block' ? Math.ceil(anyK / blockElements) * blockElements : anyK;
          check(
            gaussian(m * k, seed),
            quantized(format, gaussian(n * k, seed + 1), [n, k]),
            m,
            compute,
            isa,
          );
        },
      ),
      { numRuns: 60 },
    );
  });

  it.each(levels)(
    'gives the same bits for 1, 2, 3 and 7 threads and for each layout at level %s',
    (isa) => {
      for (const format of [
        'q4_0',
        'q8_0',
        'u4z_g128',
        'q6_k',
        'q4_k',
        'q5_0',
        'f32',
        'u7_g64',
        'bfp6_g8',
        'nvfp4',
      ] as const) {
        const [m, n, k] = [5, 203, 768];
        const a = new Tensor('f32', gaussian(m * k, 3), [m, k]);
        const b = quantized(format, gaussian(n * k, 4), [n, k]);
        for (const compute of computes) {
          const once = matmul(a, b, { compute, isa, algorithm, threads: 1 }).bytes;
          for (const threads of [2, 3, 7]) {
            expect(
              Buffer.compare(matmul(a, b, { compute, isa, algorithm, threads }).bytes, once),
            ).toBe(0);
          }
          expect(Buffer.compare(matmul(a, pack(b), { compute, isa, algorithm }).bytes, once)).toBe(
            0,
          );
        }
      }
    },
  );

  it.each(levels)('gives a row the same bits alone and in a batch at level %s', (isa) => {
    const [m, n, k] = [9, 40, 320];
    const a = gaussian(m * k, 5);
    for (const format of ['q4_0', 'i6_g32', 'nf4_g64'] as const) {
      const b = quantized(format, gaussian(n * k, 6), [n, k]);
      for (const compute of computes) {
        const all = matmul(new Tensor('f32', a, [m, k]), b, { compute, isa, algorithm }).data;
        for (let row = 0; row < m; row++) {
          const alone = matmul(new Tensor('f32', a.slice(row * k, (row + 1) * k), [k]), b, {
            compute,
            isa,
            algorithm,
          });
          expect(alone.shape).toEqual([n]);
          expect([...alone.data]).toEqual([...all.subarray(row * n, (row + 1) * n)]);
        }
      }
    }
  });

  it.each(levels)('reproduces the weights exactly from identity activations at level %s', (isa) => {
    const k = 64;
    const identity = Float32Array.from({ length: k * k }, (_, i) => (i % (k + 1) === 0 ? 1 : 0));
    for (const format of formatNames) {
      const { kind, blockElements } = formats[format];
      if (kind === 'block' && k % blockElements !== 0) continue;
      const b = quantized(format, gaussian(5 * k, 8), [5, k]);
      const c = matmul(new Tensor('f32', identity, [k, k]), b, { isa, algorithm }).data;
      const weights = decoded(b);
      // + 0: the sum of a weight -0 and zeros is +0.
      const expected = Float32Array.from(
        c,
        (_, i) => (weights[(i % 5) * k + Math.floor(i / 5)] as number) + 0,
      );
      if (Buffer.compare(Buffer.from(c.buffer), Buffer.from(expected.buffer)) !== 0) {
        expect(c, format).toEqual(expected);
        expect.fail(`${format}: bits differ`);
      }
    }
  });

  it.each(levels)(
    'reads lanes16: rows in lanes and rows past the last sixteen, at level %s',
    (isa) => {
      for (const format of ['q4_0', 'q8_0'] as const) {
        for (const [m, n, k] of [
          [1, 16, 32],
          [1, 50, 96],
          [6, 33, 320],
          [5, 15, 64],
          [37, 100, 1056],
        ] as const) {
          const b = quantized(format, gaussian(n * k, k), [n, k]);
          const packed = pack(b, { layout: 'lanes16' });
          expect([...pack(packed, { layout: 'canonical' }).bytes]).toEqual([...b.bytes]);
          const a = gaussian(m * k, n);
          const x = new Tensor('f32', a, [m, k]);
          for (const compute of computes) {
            const c = matmul(x, packed, { compute, isa, algorithm });
            const rounded = compute === 'i8' ? roundActivations(a, m, k) : a;
            const { values, magnitudes } = referenceMatmul(rounded, decoded(b), m, n, k);
            values.forEach((value, i) => {
              const error = Math.abs((c.data[i] as number) - value);
              expect(error).toBeLessThanOrEqual(bound * (magnitudes[i] as number));
            });
            for (const threads of [1, 2, 3, 7]) {
              expect(
                Buffer.compare(
                  matmul(x, packed, { compute, isa, algorithm, threads }).bytes,
                  c.bytes,
                ),
              ).toBe(0);
            }
            const alone = matmul(x.slice(m - 1, m), packed, { compute, isa, algorithm });
            expect([...alone.data]).toEqual([...c.data.subarray((m - 1) * n, m * n)]);
          }
        }
      }
    },
  );
});
