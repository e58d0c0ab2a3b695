import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Compute,
  type Format,
  formats,
  type Isa,
  machine,
  matmul,
  matmulAsync,
  matmulKernel,
  pack,
  QuantizedTensor,
  Tensor,
} from '../../lib/index.js';
import { colsOf, formatNames, quantized } from '../quantize/cases.js';
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
    for (const format of formatNames) {
      for (const k of colsOf(format)) {
        const b = quantized(format, gaussian(9 * k, k), [9, k]);
        for (const compute of computes) {
          check(gaussian(3 * k, 7 + k), b, 3, compute, isa);
          checked++;
        }
      }
    }
    expect(checked).toBeGreaterThan(formatNames.length * 3);
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

  it('reads and writes f16, bf16, strided and batched tensors', () => {
    const [batch, m, n, k] = [2, 3, 10, 64];
    const values = Array.from(gaussian(batch * m * k, 9), (v) => Math.round(v * 8) / 8);
    const b = quantized('q8_0', gaussian(n * k, 10), [n, k]);
    const plain = matmul(new Tensor('f32', values, [batch, m, k]), b);
    expect(plain.shape).toEqual([batch, m, n]);
    for (const dtype of ['f16', 'bf16'] as const) {
      const c = matmul(new Tensor(dtype, values, [batch, m, k]), b);
      expect(c.toArray()).toEqual(plain.toArray());
      const out = matmul(new Tensor(dtype, values, [batch, m, k]), b, {
        out: Tensor.zeros(dtype, [batch, m, n]),
      });
      const expected = new Tensor(dtype, plain.toArray(), [batch, m, n]);
      expect(Buffer.compare(out.bytes, expected.bytes)).toBe(0);
    }
    // Rows 3 elements apart from where they would be, columns two apart, at an odd byte offset.
    const strides = [m * (2 * k + 3), 2 * k + 3, 2];
    const memory = Buffer.alloc(4 * batch * (strides[0] as number) + 1).subarray(1);
    const strided = new Tensor('f32', memory, [batch, m, k], { strides });
    values.forEach((value, i) => {
      const row = Math.floor(i / k);
      memory.writeFloatLE(
        value,
        4 *
          (Math.floor(row / m) * (strides[0] as number) +
            (row % m) * (strides[1] as number) +
            2 * (i % k)),
      );
    });
    const out = new Tensor(
      'f32',
      Buffer.alloc(4 * batch * m * n * 3 + 3).subarray(3),
      [batch, m, n],
      {
        strides: [m * n * 3, n * 3, 3],
      },
    );
    for (const isa of levels) {
      expect(matmul(strided, b, { out, isa }).toArray()).toEqual(
        matmul(new Tensor('f32', values, [batch, m, k]), b, { isa }).toArray(),
      );
    }
  });

  it('adds the bias', () => {
    const [m, n, k] = [3, 70, 96];
    const a = gaussian(m * k, 11);
    const b = quantized('u4_g32', gaussian(n * k, 12), [n, k]);
    const bias = gaussian(n, 13);
    const c = matmul(new Tensor('f32', a, [m, k]), b, { bias: new Tensor('f32', bias, [n]) }).data;
    const { values, magnitudes } = referenceMatmul(a, decoded(b), m, n, k, bias);
    values.forEach((value, i) => {
      expect(Math.abs((c[i] as number) - value)).toBeLessThanOrEqual(
        bound * (magnitudes[i] as number),
      );
    });
  });

  it('keeps extreme products exact in i8: all codes at their ends, all of one sign', () => {
    const k = 4096;
    for (const isa of levels) {
      for (const sign of [1, -1]) {
        const a = new Float32Array(k).fill(127 * sign);
        // q8_0: scale 1, every weight -128: the most that 8-bit products can reach.
        const block = Uint8Array.of(0x00, 0x3c, ...new Array(32).fill(0x80));
        const b = new QuantizedTensor('q8_0', Buffer.concat(new Array(k / 32).fill(block)), [1, k]);
        const c = matmul(new Tensor('f32', a, [1, k]), b, { compute: 'i8', isa }).data;
        expect(c[0]).toBe(-128 * 127 * k * sign);
        const u8 = Uint8Array.of(0x00, 0x3c, ...new Array(32).fill(0xff));
        const unsigned = new QuantizedTensor('u8_g32', Buffer.concat(new Array(k / 32).fill(u8)), [
          1,
          k,
        ]);
        expect(matmul(new Tensor('f32', a, [1, k]), unsigned, { compute: 'i8', isa }).data[0]).toBe(
          127 * 127 * k * sign,
        );
      }
    }
  });

  it('carries NaN and infinity through, in the rows they stand in and no others', () => {
    const [n, k] = [12, 96];
    for (const format of ['q4_0', 'u3_g32', 'f32', 'nf4_g64'] as const) {
      const b = quantized(format, gaussian(n * k, 14), [n, k]);
      for (const isa of levels) {
        for (const compute of computes) {
          for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
            const a = gaussian(2 * k, 15);
            a[k + 70] = bad;
            const c = matmul(new Tensor('f32', a, [2, k]), b, { compute, isa }).data;
            expect(c.subarray(0, n).every(Number.isFinite)).toBe(true);
            expect(c.subarray(n).some(Number.isFinite)).toBe(false);
          }
        }
      }
    }
  });

  it('takes denormal, zero and huge activations', () => {
    const k = 64;
    const b = quantized('q8_0', gaussian(8 * k, 16), [8, k]);
    for (const isa of levels) {
      for (const scale of [0, 1e-44, 1e-38, 1e30]) {
        const a = gaussian(k, 17, scale);
        for (const compute of computes) {
          const c = matmul(new Tensor('f32', a, [1, k]), b, { compute, isa }).data;
          const rounded = compute === 'i8' ? roundActivations(a, 1, k) : a;
          const { values, magnitudes } = referenceMatmul(rounded, decoded(b), 1, 8, k);
          values.forEach((value, i) => {
            expect(Math.abs((c[i] as number) - value)).toBeLessThanOrEqual(
              bound * (magnitudes[i] as number) + 1e-40 * k,
            );
          });
        }
      }
    }
  });

  // The largest of 32 Gaussian values is about 2.2 sigma; a step of 2.2 / 127 leaves a uniform error of
  // 2.2 / 127 / sqrt(12) = 5.0e-3 sigma.
  it('stays within its stated error on Gaussian activations in i8', () => {
    const [m, n, k] = [4, 64, 4096];
    const a = gaussian(m * k, 18);
    const b = quantized('q8_0', gaussian(n * k, 19), [n, k]);
    const c = matmul(new Tensor('f32', a, [m, k]), b, { compute: 'i8' }).data;
    const { values } = referenceMatmul(a, decoded(b), m, n, k);
    let error = 0;
    let norm = 0;
    values.forEach((value, i) => {
      error += ((c[i] as number) - value) ** 2;
      norm += value ** 2;
    });
    expect(Math.sqrt(error / norm)).toBeLessThan(6e-3);
  });

  it('takes empty dimensions', () => {
    const b = quantized('f32', new Float32Array(0), [4, 0]);
    expect(matmul(new Tensor('f32', [], [2, 0]), b).toArray()).toEqual(new Array(8).fill(0));
    const none = quantized('q4_0', new Float32Array(0), [0, 32]);
    expect(matmul(Tensor.zeros('f32', [2, 32]), none).shape).toEqual([2, 0]);
    const some = quantized('q4_0', gaussian(64), [2, 32]);
    expect(matmul(Tensor.zeros('f32', [0, 32]), some).shape).toEqual([0, 2]);
  });

  it('gives the same from its async form', async () => {
    const [m, n, k] = [4, 300, 256];
    const a = new Tensor('f32', gaussian(m * k, 20), [m, k]);
    const b = quantized('q4_0', gaussian(n * k, 21), [n, k]);
    const [first, second] = await Promise.all([
      matmulAsync(a, b),
      matmulAsync(a, b, { compute: 'i8' }),
    ]);
    expect(Buffer.compare(first.bytes, matmul(a, b).bytes)).toBe(0);
    expect(Buffer.compare(second.bytes, matmul(a, b, { compute: 'i8' }).bytes)).toBe(0);
  });

  it('names the kernel it would run', () => {
    const a = Tensor.zeros('f32', [1, 64]);
    const b = quantized('q4_0', gaussian(64), [1, 64]);
    for (const isa of levels) {
      const vector = isa === 'amx' ? 'avx512' : isa;
      expect(matmulKernel(a, b, { isa })).toBe(`matmul_dequant_f32_${vector}`);
      expect(matmulKernel(a, b, { isa, compute: 'i8' })).toBe(`matmul_dequant_i8_${vector}`);
    }
    expect(
      matmulKernel(a, quantized('nf4_g64', gaussian(64), [1, 64]), {
        compute: 'i8',
        isa: 'scalar',
      }),
    ).toBe('matmul_dequant_f32_scalar');
  });
});
