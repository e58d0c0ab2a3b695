// What goes in and comes out: dtypes, strides, bias, and values at their ends.
import { describe, expect, it } from 'vitest';
import {
  type Compute,
  machine,
  matmul,
  matmulAsync,
  matmulKernel,
  QuantizedTensor,
  Tensor,
} from '../../lib/index.js';
import { quantized } from '../quantize/cases.js';
import { referenceMatmul, roundActivations } from '../reference/matmul.js';
import { gaussian } from '../reference/random.js';
import { decoded } from './cases.js';

const levels = machine().isas;
const computes: Compute[] = ['f32', 'i8'];

/**
 * Largest error relative to the sum of |products|. f32 kernels add in f32 (lanes of 8 or 16, chunks of
 * 256): at most about K / 16 roundings of 2^-24 each; the exact int8 sums of i8 leave the same.
 */
const bound = 2 ** -20;

describe('matmul', () => {
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
