import { describe, expect, it } from 'vitest';
import {
  type Format,
  formats,
  type Isa,
  machine,
  matmul,
  matmulKernel,
  pack,
  type QuantizedTensor,
  Tensor,
} from '../../lib/index.js';
import { quantized, sampledFormats } from '../quantize/cases.js';
import { gaussian } from '../reference/random.js';

// The contract of algorithm dequant with compute i8: the same bits at every ISA level.
const levels = machine().isas.slice(1);

const options = { compute: 'i8', algorithm: 'dequant' } as const;

/** Bits of every element; all NaN are one. */
function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(
    Float32Array.from(values, (x) => (Number.isNaN(x) ? Number.NaN : x)).buffer,
  );
}

function expectSameBits(a: Float32Array, m: number, b: QuantizedTensor, isa: Isa, note = ''): void {
  const x = new Tensor('f32', a, [m, b.cols]);
  const expected = bitsOf(matmul(x, b, { ...options, isa: 'scalar' }).data as Float32Array);
  const given = bitsOf(matmul(x, b, { ...options, isa }).data as Float32Array);
  const at = given.findIndex((bits, i) => bits !== expected[i]);
  if (at >= 0) {
    expect.fail(
      `${b.format} ${b.layout} m=${m} n=${b.rows} k=${b.cols} ${isa} ${note}: element ${at} is ` +
        `${given[at]?.toString(16)}, expected ${expected[at]?.toString(16)}`,
    );
  }
}

/** Formats whose values are integers: those that dequant computes with int8 activations. */
const floatKinds = ['codebook', 'codebooks', 'rowCodebook', 'nf4', 'e3m2', 'e4m3', 'e5m2'];
const integerFormats = sampledFormats.filter(
  (format) =>
    !floatKinds.includes(formats[format].kind) && !['f32', 'f16', 'bf16'].includes(format),
);

function lengthsOf(format: Format, lengths: number[]): number[] {
  const { kind, blockElements } = formats[format];
  return kind === 'block' ? [blockElements, 3 * blockElements] : lengths;
}

describe.each(levels)('dequant i8 at level %s has the bits of level scalar', (isa) => {
  it('in every format, in both layouts', () => {
    let vectorized = 0;
    for (const format of integerFormats) {
      for (const k of lengthsOf(format, [31, 290])) {
        const canonical = quantized(format, gaussian(35 * k, k), [35, k]);
        const b = pack(canonical);
        const a = gaussian(3 * k, k + 1);
        expectSameBits(a, 3, b, isa);
        if (k < 100) expectSameBits(a, 3, canonical, isa);
        const x = new Tensor('f32', a, [3, k]);
        if (matmulKernel(x, b, { ...options, isa })?.includes(isa === 'amx' ? 'avx512' : isa)) {
          vectorized++;
        }
      }
    }
    expect(vectorized).toBe(2 * integerFormats.length);
  });

  it('for any M, N and K', () => {
    const some: Format[] = [
      'q4_0',
      'u3z_g32',
      'u1_g64',
      'i6_row',
      'q2_k',
      'q5_k',
      'q6_k',
      'u8z_g128',
    ];
    for (const format of some) {
      for (const [m, n, k] of [
        [1, 15, 1],
        [2, 17, 31],
        [4, 16, 33],
        [7, 33, 63],
        [8, 48, 65],
        [15, 16, 96],
        [17, 31, 257],
        [33, 160, 64],
        [1, 304, 352],
        [5, 272, 40],
      ] as const) {
        const cols = formats[format].kind === 'block' ? formats[format].blockElements : k;
        const b = pack(quantized(format, gaussian(n * cols, n), [n, cols]));
        expectSameBits(gaussian(m * cols, m), m, b, isa);
      }
    }
  });

  it('for zeros, denormals, extremes, infinities and NaN', () => {
    for (const format of [
      'q4_0',
      'q8_0',
      'iq4_nl',
      'u2z_g64_bf16',
      'u1_row',
      'q3_k',
      'q4_k',
    ] as Format[]) {
      const k = formats[format].kind === 'block' ? formats[format].blockElements : 100;
      // Weights: a row of zeros, the largest codes everywhere, tiny ones.
      const w = gaussian(16 * k, 3);
      for (let i = 0; i < k; i++) {
        w[i] = 0;
        w[k + i] = i % 2 === 0 ? 8 : -8;
        w[2 * k + i] = (w[2 * k + i] as number) * 1e-6;
      }
      const b = pack(quantized(format, w, [16, k]));
      for (const special of [0, -0, 1e-40, 1e-37, 3e38, -3e38, Infinity, -Infinity, NaN]) {
        const a = gaussian(2 * k, 5);
        a[k / 4] = special;
        expectSameBits(a, 2, b, isa, `special ${special}`);
        expectSameBits(new Float32Array(2 * k).fill(special), 2, b, isa, `all ${special}`);
      }
    }
  });

  it('for the largest products: no sum overflows', () => {
    for (const format of integerFormats) {
      const k = formats[format].kind === 'block' ? formats[format].blockElements : 64;
      // Both ends of the codes in every row; activations of the same sign and of alternating signs.
      const w = Float32Array.from({ length: 16 * k }, (_, i) => (i % k === 0 ? -1 : 1));
      const b = pack(quantized(format, w, [16, k]));
      expectSameBits(new Float32Array(k).fill(1), 1, b, isa, 'ones');
      expectSameBits(new Float32Array(k).fill(-1), 1, b, isa, 'minus ones');
      const negative = pack(
        quantized(
          format,
          w.map((x) => -x),
          [16, k],
        ),
      );
      expectSameBits(new Float32Array(k).fill(1), 1, negative, isa, 'negative weights');
    }
  });

  it('with any number of threads', () => {
    for (const format of ['q4_0', 'u2_g128', 'q6_k'] as Format[]) {
      const [m, n, k] = [3, 600, 256];
      const b = pack(quantized(format, gaussian(n * k, 4), [n, k]));
      const a = new Tensor('f32', gaussian(m * k, 3), [m, k]);
      const once = matmul(a, b, { ...options, isa, threads: 1 }).bytes;
      for (const threads of [2, 3, 7]) {
        expect(matmul(a, b, { ...options, isa, threads }).bytes).toEqual(once);
      }
    }
  });
});
