// matmul's f32 kernels: against float64 on the dequantized weights, and bit by bit among themselves: levels avx2 and
// avx512, one row and many, canonical and lanes16, any number of threads.
import { describe, expect, it } from 'vitest';
import {
  dequantize,
  type Format,
  formats,
  type Isa,
  machine,
  matmul,
  pack,
  type QuantizedTensor,
  Tensor,
} from '../../lib/index.js';
import { formatNames, quantized, sampledFormats } from '../quantize/cases.js';
import { gaussian } from '../reference/random.js';

const levels = (['avx2', 'avx512'] as Isa[]).filter((isa) => machine().isas.includes(isa));
const bits = (t: Tensor) => new Uint32Array((t.data as Float32Array).slice().buffer);
const run = (a: Float32Array, b: QuantizedTensor, isa: Isa, threads = 1): Tensor =>
  matmul(new Tensor('f32', a, [a.length / b.cols, b.cols]), b, {
    compute: 'f32',
    algorithm: 'dequant',
    isa,
    threads,
  });

/** Root mean square error of c against float64, relative to that of the result. */
function relativeError(c: Tensor, a: Float32Array, b: QuantizedTensor): number {
  const weights = dequantize(b, { isa: 'scalar' }).data as Float32Array;
  const k = b.cols;
  let error = 0;
  let norm = 0;
  (c.data as Float32Array).forEach((value, i) => {
    const m = Math.floor(i / b.rows);
    const n = i % b.rows;
    let sum = 0;
    for (let l = 0; l < k; l++) sum += (a[m * k + l] as number) * (weights[n * k + l] as number);
    error += (sum - value) ** 2;
    norm += sum ** 2;
  });
  return Math.sqrt(error / norm);
}

/** Rows of the format's own lengths, around chunks of 32 and blocks of decoded weights of 64. */
function colsOf(format: Format): number[] {
  const { kind, blockElements } = formats[format];
  return kind === 'block' ? [blockElements === 1 ? 65 : blockElements] : [1, 63, 289];
}

describe.each(levels)('matmul dequant f32 at level %s', (isa) => {
  it('stays within 1e-6 of float64 in every format', () => {
    for (const format of sampledFormats) {
      for (const k of colsOf(format)) {
        const b = pack(quantized(format, gaussian(17 * k, k), [17, k]));
        const a = gaussian(3 * k, 2 * k + 1);
        // A single weight that rounds to zero leaves nothing to compare with.
        const c = run(a, b, isa);
        const error = relativeError(c, a, b);
        if (!(error <= 1e-6 || Number.isNaN(error))) expect(error, `${format} k=${k}`).toBe(0);
      }
    }
    expect(sampledFormats.length).toBeGreaterThan(50);
  });

  it('stays within 1e-6 of float64 in long sums', () => {
    for (const format of ['f32', 'q8_0', 'u4z_g128', 'cb4_row', 'q4_k'] as const) {
      const [m, n, k] = [2, 16, 8192];
      const b = quantized(format, gaussian(n * k, 5), [n, k]);
      const a = gaussian(m * k, 6);
      expect(relativeError(run(a, b, isa), a, b), format).toBeLessThan(1e-6);
    }
  });

  it('gives a row the same bits alone and among others, in each layout, for each number of threads', () => {
    const formatsHere: Format[] = [
      'f16',
      'nf4_g32',
      'u3z_g64',
      'q5_1',
      'q6_k',
      'cb6_g32',
      'cb7_g64',
      'e4m3_g16',
    ];
    for (const format of formatsHere) {
      for (const [m, n, k] of [
        [7, 35, 512],
        [17, 16, 256],
        [33, 33, 256],
      ] as const) {
        const b = quantized(format, gaussian(n * k, n), [n, k]);
        const a = gaussian(m * k, m);
        const all = bits(run(a, b, isa));
        const packed = pack(b);
        for (const threads of [1, 2, 3, 7]) {
          expect(bits(run(a, packed, isa, threads)), format).toEqual(all);
        }
        for (const row of [0, m - 1]) {
          const alone = bits(run(a.slice(row * k, row * k + k), packed, isa));
          expect(alone, format).toEqual(all.subarray(row * n, row * n + n));
        }
      }
    }
  });

  it('reproduces every weight from one-hot rows, one by one and together', () => {
    const k = 256;
    for (const format of sampledFormats) {
      if (!/g32$|g8$|_k$|_[01]$|^[bft]|fp4$/.test(format)) continue;
      const b = pack(quantized(format, gaussian(16 * k, 3), [16, k]));
      const weights = dequantize(b, { isa: 'scalar' }).data as Float32Array;
      const picks = [0, 37, k - 1];
      const a = new Float32Array(picks.length * k);
      picks.forEach((pick, i) => {
        a[i * k + pick] = 1;
      });
      // + 0: sums of -0 and 0 are 0.
      const expected = picks.flatMap((pick) =>
        Array.from({ length: 16 }, (_, n) => (weights[n * k + pick] as number) + 0),
      );
      expect(
        Array.from(run(a, b, isa).data, (x) => x + 0),
        format,
      ).toEqual(expected);
      const one = run(a.slice(k, 2 * k), b, isa);
      expect(
        Array.from(one.data, (x) => x + 0),
        format,
      ).toEqual(expected.slice(16, 32));
    }
  });

  it('carries zeros, denormals, infinities and NaN', () => {
    const k = 96;
    for (const format of ['f16', 'q8_0', 'nf4_g32'] as const) {
      const b = pack(quantized(format, gaussian(16 * k, 14), [16, k]));
      expect(run(new Float32Array(k), b, isa).toArray()).toEqual(new Array(16).fill(0));
      const tiny = gaussian(k, 15, 1e-40);
      const scaled = tiny.map((x) => x * 2 ** 40);
      const c = run(tiny, b, isa).data;
      run(scaled, b, isa).data.forEach((x, i) => {
        expect(Math.abs((c[i] as number) - x / 2 ** 40)).toBeLessThan(1e-43);
      });
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
        const a = gaussian(2 * k, 16);
        a[k + 70] = bad;
        const rows = run(a, b, isa).data;
        expect(rows.subarray(0, 16).every(Number.isFinite)).toBe(true);
        expect(rows.subarray(16).some(Number.isFinite)).toBe(false);
      }
    }
  });
});

it.skipIf(levels.length < 2)('levels avx2 and avx512 give the same bits', () => {
  for (const format of formatNames) {
    const k = formats[format].kind === 'block' ? formats[format].blockElements : 97;
    const b = quantized(format, gaussian(16 * k, k), [16, k]);
    const a = gaussian(2 * k, 9);
    expect(bits(run(a, b, 'avx512')), format).toEqual(bits(run(a, b, 'avx2')));
    const one = a.slice(0, k);
    expect(bits(run(one, b, 'avx512')), format).toEqual(bits(run(one, b, 'avx2')));
  }
});
