import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Format,
  formats,
  type Isa,
  type MatmulOptions,
  matmul,
  matmulKernel,
  pack,
  type QuantizedTensor,
  quantize,
  Tensor,
} from '../../lib/index.js';
import { gaussian } from '../reference/random.js';
import { isasHere, thrown } from '../reference/views.js';

const names = Object.keys(formats) as Format[];
/** Formats whose codes are planes of 1 and 2 bits, with scales (and zero points) per 32 weights or more. */
const taken = names.filter(
  (name) =>
    /^(u|i)[123]z?_(g32|g64|g128|g256|row)(_bf16)?$|^t2_(g32|g64|g128|g256|row)(_bf16)?$/.test(
      name,
    ) || /^tq/.test(name),
);

const bits = (c: Tensor): Uint32Array => new Uint32Array((c.data as Float32Array).slice().buffer);

/** What the specification gives. */
function expected(a: Tensor<'f32'>, b: QuantizedTensor): Uint32Array {
  return bits(matmul(a, b, { compute: 'i8', algorithm: 'dequant', isa: 'scalar' }));
}

function lut(a: Tensor<'f32'>, b: QuantizedTensor, isa: Isa, threads = 1): Uint32Array {
  return bits(matmul(a, b, { compute: 'i8', algorithm: 'lut', isa, threads }));
}

/** Weights whose codes are all `code` (raw, as in formats.inc), scales 1, zero points 0. */
function constant(format: Format, code: number, shape: [number, number]): QuantizedTensor {
  const b = quantize(new Tensor('f32', gaussian(shape[0] * shape[1], 3), shape), format);
  const header = /z_/.test(format) ? 4 : 2;
  const codeBytes = (Number(/_g(\d+)/.exec(format)?.[1] ?? shape[1]) * Number(format[1])) / 8;
  let stream = 0; // the codes repeat every 24 bits at the latest
  for (let i = 0; i < 24; i += Number(format[1])) stream |= code << i;
  for (let at = 0; at < b.bytes.length; at += header + codeBytes) {
    b.bytes.set([0, 0x3c, 0, 0].slice(0, header), at);
    for (let i = 0; i < codeBytes; i++) b.bytes[at + header + i] = stream >> (8 * (i % 3));
  }
  return b;
}

describe('matmul lut', () => {
  it('has the bits of dequant in every format at every level', () => {
    for (const [i, format] of taken.entries()) {
      const k = /^tq/.test(format) ? 256 : 173;
      const canonical = quantize(new Tensor('f32', gaussian(35 * k, i), [35, k]), format);
      const lanes = pack(canonical);
      const a = new Tensor('f32', gaussian(3 * k, 777 + i), [3, k]);
      const want = expected(a, canonical);
      for (const isa of isasHere) {
        const options = { compute: 'i8', algorithm: 'lut', isa } as const;
        expect(matmulKernel(a, canonical, options)).toMatch(/_lut_i8_/);
        expect(lut(a, canonical, isa), format).toEqual(want);
        expect(lut(a, lanes, isa), format).toEqual(want);
      }
    }
    expect(taken.length).toBe(13 * 10 + 2);
  });

  it.each(isasHere)('takes any M, N, K and number of threads at level %s', (isa) => {
    fc.assert(
      fc.property(
        fc.constantFrom<Format>(
          'u1_g32',
          'i1z_row',
          't2_g64',
          'u2z_g128_bf16',
          'u3_g32',
          'i3z_row_bf16',
        ),
        fc.integer({ min: 1, max: 19 }),
        fc.constantFrom(1, 15, 16, 17, 33, 129, 272),
        fc.oneof(fc.constantFrom(1, 31, 33, 63, 65, 257), fc.integer({ min: 1, max: 130 })),
        fc.constantFrom(1, 2, 3, 7),
        fc.integer(),
        (format, m, n, k, threads, seed) => {
          const b = quantize(new Tensor('f32', gaussian(n * k, seed), [n, k]), format);
          const a = new Tensor('f32', gaussian(m * k, seed + 1), [m, k]);
          const want = expected(a, b);
          expect(lut(a, b, isa, threads)).toEqual(want);
          expect(lut(a, pack(b), isa, threads)).toEqual(want);
        },
      ),
      { numRuns: 25 },
    );
  });

  it.each(isasHere)(
    'has the bits of dequant for zeros, denormals, infinities and NaN at level %s',
    (isa) => {
      const k = 192;
      const values = gaussian(8 * k, 5);
      values.fill(0, 0, k);
      values.fill(-0, k, 2 * k);
      values.fill(1e-42, 2 * k, 3 * k);
      values[3 * k + 7] = Number.POSITIVE_INFINITY;
      values[4 * k + 8] = Number.NaN;
      values[5 * k + 9] = Number.NEGATIVE_INFINITY;
      values[6 * k + 10] = 3e38;
      values[7 * k + 11] = 1e30;
      const a = new Tensor('f32', values, [8, k]);
      for (const format of [
        'u1_g64',
        'u1z_g32',
        't2_g128',
        'u2z_row',
        'u3_g64',
        'i3z_g32',
      ] as Format[]) {
        const b = pack(quantize(new Tensor('f32', gaussian(32 * k, 6, 1e-3), [32, k]), format));
        expect(lut(a, b, isa)).toEqual(expected(a, b));
        expect(
          expected(a, b)
            .slice(3 * 32, 4 * 32)
            .every((word) => word === 0x7fc00000),
        ).toBe(true);
      }
    },
  );

  // Sums at their largest: int16 sums of 4096 products overflow in bitnet.cpp's I2_S, and halving additions of
  // T-MAC lose bits. Scales are 1 and activations +-127 exactly, so that every result is a known integer.
  it.each(isasHere)('is exact at the largest codes and activations at level %s', (isa) => {
    const k = 4096;
    const n = 33;
    const signs: Record<string, (i: number) => number> = {
      positive: () => 1,
      negative: () => -1,
      alternating: (i) => (i % 2 === 0 ? 1 : -1),
      'alternating by four': (i) => (i & 4 ? 1 : -1),
      'alternating by sixteen': (i) => (i & 16 ? 1 : -1),
    };
    const cases: [Format, number, number][] = [
      ['u1_g128', 1, 1],
      ['u1_g128', 0, -1],
      ['u1z_row', 1, 1],
      ['t2_g128', 2, 1],
      ['t2_g128', 0, -1],
      ['u2z_g256', 3, 3],
      ['u2_g32', 0, -2],
      ['i2_g64', 2, -2],
      ['u3z_g128', 7, 7],
    ];
    for (const [format, code, weight] of cases) {
      const b = pack(constant(format, code, [n, k]));
      for (const sign of Object.values(signs)) {
        const row = Float32Array.from({ length: k }, (_, i) => 127 * sign(i));
        const c = matmul(new Tensor('f32', row, [1, k]), b, {
          compute: 'i8',
          algorithm: 'lut',
          isa,
        });
        const total = weight * row.reduce((sum, value) => sum + value, 0);
        expect([...c.data].every((value) => value === total)).toBe(true);
      }
    }
  });

  it('writes every row of a batch', () => {
    const [m, n, k] = [9, 272, 256];
    for (const isa of isasHere) {
      const b = pack(quantize(new Tensor('f32', gaussian(n * k, 8), [n, k]), 't2_g128'));
      const a = new Tensor('f32', gaussian(m * k, 9), [m, k]);
      const out = new Tensor('f32', new Float32Array(m * n).fill(Number.NaN), [m, n]);
      matmul(a, b, { compute: 'i8', algorithm: 'lut', isa, out });
      for (let row = 0; row < m; row++) {
        const alone = new Tensor('f32', (a.data as Float32Array).slice(row * k, (row + 1) * k), [
          1,
          k,
        ]);
        const want = matmul(alone, b, { compute: 'i8', algorithm: 'lut', isa });
        expect(out.data.slice(row * n, (row + 1) * n)).toEqual(want.data);
      }
    }
  });

  it('has the bits of dequant in every other integer format, by tables that only a call takes', () => {
    let wide = 0;
    for (const [i, format] of names.entries()) {
      if (taken.includes(format) || /^(nf4|fp4|cb|lut|e3m2|e4m3|e5m2|f32|f16|bf16)/.test(format)) {
        continue;
      }
      const k = formats[format].kind === 'block' ? 512 : 173;
      const b = quantize(new Tensor('f32', gaussian(19 * k, i), [19, k]), format);
      const values = gaussian(5 * k, 777 + i);
      values.fill(0, 0, 40);
      values[k + 3] = Number.NaN;
      const a = new Tensor('f32', values, [5, k]);
      const want = expected(a, b);
      for (const isa of isasHere) {
        const kernel = matmulKernel(a, b, { algorithm: 'lut', isa });
        expect(kernel, format).toMatch(/_lut_/);
        if (kernel?.includes('_lut_wide_') === true) {
          expect(matmulKernel(a, b, { compute: 'i8', isa })).not.toMatch(/lut/);
          wide++;
        }
        expect(lut(a, b, isa), format).toEqual(want);
        expect(lut(a, pack(b), isa, 3), format).toEqual(want);
      }
    }
    expect(wide).toBeGreaterThan(190 * isasHere.length);
  });

  it('takes int8 where no compute mode is named', () => {
    const b = quantize(new Tensor('f32', gaussian(16 * 64, 2), [16, 64]), 'u2_g32');
    const a = new Tensor('f32', gaussian(64), [1, 64]);
    const named = matmul(a, b, { compute: 'i8', algorithm: 'lut' });
    expect(matmul(a, b, { algorithm: 'lut' }).data).toEqual(named.data);
    expect(matmulKernel(a, b, { algorithm: 'tile' })).toMatch(/_tile_bf16_/);
  });

  it.each<[Format, MatmulOptions, string]>([
    [
      'nf4_g32',
      { algorithm: 'lut' },
      'matmul: algorithm is lut, which cannot do compute i8 of format nf4_g32, expected algorithm dequant or tile',
    ],
    [
      'u4_g32',
      { algorithm: 'lut', compute: 'f32' },
      'matmul: algorithm is lut, which cannot do compute f32 of format u4_g32, expected algorithm dequant, or compute i8',
    ],
    [
      'u4_g32',
      { algorithm: 'tile', compute: 'f32' },
      'matmul: algorithm is tile, which cannot do compute f32 of format u4_g32, expected algorithm dequant, or compute i8 or bf16',
    ],
    [
      'u4_g32',
      { algorithm: 'lut', tables: 'fast' },
      'matmul: algorithm is lut, which cannot do compute i8 with fast tables of format u4_g32, expected algorithm dequant or tile, or lossless tables',
    ],
  ])('says what can be asked for instead: %s %j', (format, options, message) => {
    const b = quantize(new Tensor('f32', gaussian(16 * 64, 2), [16, 64]), format);
    const error = thrown(() => matmul(new Tensor('f32', gaussian(64), [1, 64]), b, options));
    expect(error.message).toBe(message);
    expect(error.code).toBe('BL_UNSUPPORTED');
  });
});
