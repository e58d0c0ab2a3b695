import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type FloatDType,
  type MatmulOptions,
  matmul,
  matmulAsync,
  matmulKernel,
  pack,
  Tensor,
} from '../../lib/index.js';
import { quantized } from '../quantize/cases.js';
import { referenceOutputs, roundGroups, roundSigns } from '../reference/matmul.js';
import { gaussian, randomSource } from '../reference/random.js';
import { floatTypes, isasHere, strided, thrown } from '../reference/views.js';
import { bytesEqual, decoded, expectOutputs } from './cases.js';

const f32 = (values: Float32Array, shape: number[]): Tensor<'f32'> =>
  new Tensor('f32', values, shape);

/** Codes in [-127, 127]. */
function codes(count: number, seed: number): Int8Array {
  const random = randomSource(seed);
  return Int8Array.from({ length: count }, () => Math.floor(random() * 255) - 127);
}

function shuffled(count: number, seed: number): Int32Array {
  const random = randomSource(seed);
  const order = Int32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j] as number, order[i] as number];
  }
  return order;
}

describe('matmul: activations', () => {
  it.each(isasHere)(
    'scales, orders and rounds columns as the reference does at level %s',
    (isa) => {
      fc.assert(
        fc.property(
          fc.constantFrom('u4_g32', 'q8_0', 'u1_row', 'f16', 'i5_g64') as fc.Arbitrary<'u4_g32'>,
          fc.integer({ min: 1, max: 9 }),
          fc.integer({ min: 1, max: 20 }),
          fc.integer({ min: 1, max: 140 }),
          fc.constantFrom(...floatTypes),
          fc.constantFrom('f32', 'i8') as fc.Arbitrary<'f32' | 'i8'>,
          fc.constantFrom(8, 4) as fc.Arbitrary<8 | 4>,
          fc.constantFrom(32, 'row') as fc.Arbitrary<32 | 'row'>,
          fc.integer({ min: 0, max: 3 }),
          fc.integer({ min: 1, max: 1000 }),
          (format, m, n, anyK, dtype, compute, activationBits, activationGroup, given, seed) => {
            const k = (format as string) === 'q8_0' ? 32 * Math.ceil(anyK / 32) : anyK;
            const b = quantized(format, gaussian(n * k, seed), [n, k]);
            const width = k + (given & 2 ? 5 : 0);
            const a = strided(dtype, gaussian(m * width, seed + 1), [m, width], 1);
            const seen = a.toArray();
            // By dequant: tiles round to int8 in a way of their own.
            const options: MatmulOptions = { isa, compute, algorithm: 'dequant' };
            let product = seen;
            if (given & 1) {
              const columnScale = gaussian(width, seed + 2);
              options.columnScale = f32(columnScale, [width]);
              product = product.map((x, i) => Math.fround(x * (columnScale[i % width] as number)));
            }
            if (given & 2) {
              const order = shuffled(width, seed + 3).slice(0, k);
              options.columnOrder = new Tensor('i32', order, [k]);
              const before = product;
              product = Array.from(
                { length: m * k },
                (_, i) => before[Math.floor(i / k) * width + (order[i % k] as number)] as number,
              );
            }
            let rounded: ArrayLike<number> = product;
            if (compute === 'i8') {
              Object.assign(options, { activationBits, activationGroup });
              if ((format as string) !== 'f16') {
                const group = activationGroup === 'row' ? k : 32;
                rounded = roundGroups(product, k, group, activationBits === 4 ? 7 : 127);
              }
            }
            expectOutputs(
              matmul(a, b, options),
              referenceOutputs(rounded, seen, decoded(b), m, n),
              JSON.stringify({
                format,
                m,
                n,
                k,
                dtype,
                compute,
                activationBits,
                activationGroup,
                given,
              }),
            );
          },
        ),
        { numRuns: 80 },
      );
    },
  );

  it.each(isasHere)('multiplies int8 activations as they are at level %s', (isa) => {
    for (const [m, n, k] of [
      [1, 16, 32],
      [3, 20, 96],
      [2, 5, 33],
      [4, 17, 1],
    ] as const) {
      const a = codes(m * k, k);
      const view = new Tensor('i8', new Int8Array(m * k * 2), [m, k], { strides: [2 * k, 2] });
      a.forEach((code, i) => {
        view.data[2 * i] = code;
      });
      for (const format of ['u4_row', 'q8_0', 'u2z_g32', 'nf4_g64', 'u1_row'] as const) {
        if (format === 'q8_0' && k % 32 !== 0) continue;
        const b = quantized(format, gaussian(n * k, k + 1), [n, k]);
        const groups = Math.ceil(k / 32);
        const perRow = gaussian(m, k + 2);
        const per32 = gaussian(m * groups, k + 3);
        const scaled = (scale: (i: number) => number): Float64Array =>
          Float64Array.from(a, (code, i) => code * scale(i));
        const rows = scaled((i) => perRow[Math.floor(i / k)] as number);
        const parts = scaled(
          (i) => per32[Math.floor(i / k) * groups + Math.floor((i % k) / 32)] as number,
        );
        for (const x of [new Tensor('i8', a, [m, k]), view]) {
          for (const compute of ['f32', 'i8'] as const) {
            const one = matmul(x, b, {
              isa,
              compute,
              algorithm: 'dequant',
              aScales: f32(perRow, [m]),
            });
            expectOutputs(one, referenceOutputs(rows, rows, decoded(b), m, n), format);
            const each = matmul(x, b, { isa, compute, aScales: f32(per32, [m, groups]) });
            expectOutputs(each, referenceOutputs(parts, parts, decoded(b), m, n), format);
          }
          expect(
            bytesEqual(
              matmul(x, b, { isa, aScales: f32(perRow, [m]) }),
              matmul(x, b, { isa, aScales: f32(perRow, [m]), compute: 'i8' }),
            ),
          ).toBe(true);
        }
        const order = shuffled(k, k);
        const columnOrder = new Tensor('i32', order, [k]);
        const ordered = rows.map(
          (_, i) => rows[Math.floor(i / k) * k + (order[i % k] as number)] as number,
        );
        const c = matmul(view, b, { isa, aScales: f32(perRow, [m]), columnOrder });
        expectOutputs(c, referenceOutputs(ordered, rows, decoded(b), m, n), format);
      }
    }
  });

  it.each(isasHere)('rounds per row as by hand, zeros and NaN included, at level %s', (isa) => {
    const b = quantized('u8_row', Float32Array.of(1, 0, 0, 1), [2, 2]);
    const unit = matmul(new Tensor('f32', [1, 0], [1, 2]), b).data[0] as number;
    const run = (x: number[], activationBits: 4 | 8): number[] =>
      matmul(new Tensor('f32', x, [1, 2]), b, {
        isa,
        compute: 'i8',
        activationBits,
        activationGroup: 'row',
      })
        .toArray()
        .map((y) => Math.round((y / unit) * 1e4) / 1e4);
    expect(run([7, 3.4], 4)).toEqual([7, 3]);
    expect(run([-127, 3.4], 8)).toEqual([-127, 3]);
    expect(run([0, 0], 4)).toEqual([0, 0]);
    expect(run([1e-42, 0], 8)).toEqual([0, 0]);
    expect(run([Number.NaN, 1], 4)).toEqual([Number.NaN, Number.NaN]);
    expect(run([Number.POSITIVE_INFINITY, 1], 8)).toEqual([Number.NaN, Number.NaN]);
  });

  it.each(isasHere)('computes signs times signs at level %s', (isa) => {
    for (const format of ['u1_g32', 'u1_g128_bf16', 'u1_row', 'i1_g64', 'i1_row'] as const) {
      for (const [m, n, k] of [
        [1, 16, 128],
        [3, 33, 257],
        [2, 1, 1],
        [5, 15, 31],
        [2, 17, 1000],
        [33, 40, 65],
      ] as const) {
        const values = gaussian(m * k, k);
        values[0] = 0;
        const a = f32(values, [m, k]);
        const b = quantized(format, gaussian(n * k, k + 1), [n, k]);
        const c = matmul(a, b, { isa, compute: 'i1' });
        const expected = referenceOutputs(roundSigns(values, k), values, decoded(b), m, n);
        expectOutputs(c, expected, `${format} ${m} ${n} ${k}`);
        expect(bytesEqual(c, matmul(a, b, { isa: 'scalar', compute: 'i1' }))).toBe(true);
        const lanes = pack(b, { layout: 'lanes16' });
        for (const threads of [1, 2, 3, 7]) {
          expect(bytesEqual(matmul(a, lanes, { isa, compute: 'i1', threads }), c)).toBe(true);
        }
      }
    }
    const b = quantized('u1_row', gaussian(64), [2, 32]);
    const bad = gaussian(64);
    bad[40] = Number.NaN;
    const c = matmul(f32(bad, [2, 32]), b, { isa, compute: 'i1' }).toArray();
    expect(c.map(Number.isNaN)).toEqual([false, false, true, true]);
    expect(matmulKernel(f32(bad, [2, 32]), b, { isa, compute: 'i1' })).toMatch(
      /^matmul_dequant_i1_/,
    );
  });

  it('gives the same async, and on f16 and strided input', async () => {
    const [m, n, k] = [3, 20, 64];
    const b = quantized('u4_g32', gaussian(n * k, 1), [n, k]);
    const options = {
      compute: 'i8',
      activationBits: 4,
      activationGroup: 'row',
      columnOrder: new Tensor('i32', shuffled(k, 2), [k]),
      columnScale: f32(gaussian(k, 3), [k]),
    } as const;
    const a = new Tensor('f16', Array.from(gaussian(m * k, 4)), [m, k]);
    const once = matmul(a, b, options);
    expect(bytesEqual(await matmulAsync(a, b, options), once)).toBe(true);
    const apart = strided('f16', a.toArray(), [m, k], 2);
    expect(bytesEqual(matmul(apart, b, options), once)).toBe(true);
  });

  const a = Tensor.zeros('f32', [2, 64]);
  const i8 = Tensor.zeros('i8', [2, 64]);
  const b = quantized('q4_0', gaussian(6 * 64), [6, 64]);
  const order = Int32Array.from({ length: 64 }, (_, i) => i);
  const aScales = Tensor.zeros('f32', [2]);
  const fullOrder = new Tensor('i32', order, [64]);
  it.each<[string, string, Tensor<FloatDType | 'i8'>, MatmulOptions]>([
    ['BL_INVALID_ARGUMENT', 'matmul: a.dtype is i8, expected aScales with it', i8, {}],
    ['BL_INVALID_ARGUMENT', 'matmul: aScales is given, expected a of i8', a, { aScales }],
    [
      'BL_INVALID_SHAPE',
      'matmul: aScales.rank is 3, expected 1 (a scale per row) or 2 (per 32)',
      i8,
      { aScales: Tensor.zeros('f32', [2, 2, 1]) },
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: aScales.shape[0] is 3, expected 2 (= a.shape[0])',
      i8,
      { aScales: Tensor.zeros('f32', [3]) },
    ],
    [
      'BL_INVALID_SHAPE',
      "matmul: aScales.shape[1] is 3, expected 2 (= ceil(a's columns / 32))",
      i8,
      { aScales: Tensor.zeros('f32', [2, 3]) },
    ],
    [
      'BL_INVALID_DTYPE',
      'matmul: aScales.dtype is f16, expected f32',
      i8,
      { aScales: Tensor.zeros('f16', [2]) as never },
    ],
    [
      'BL_UNSUPPORTED',
      'matmul: columnOrder is given with a scale per 32 codes, expected one per row',
      i8,
      { aScales: Tensor.zeros('f32', [2, 2]), columnOrder: fullOrder },
    ],
    [
      'BL_UNSUPPORTED',
      'matmul: columnScale is given with codes, expected a of f32, f16 or bf16',
      i8,
      { aScales, columnScale: Tensor.zeros('f32', [64]) },
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: activationBits and activationGroup are given with codes, which are used as they are',
      i8,
      { aScales, activationBits: 4 },
    ],
    [
      'BL_OUT_OF_RANGE',
      'matmul: a[1][3] is -128, expected codes of -127 to 127',
      new Tensor(
        'i8',
        Int8Array.from({ length: 128 }, (_, i) => (i === 67 ? -128 : 1)),
        [2, 64],
      ),
      { aScales },
    ],
    [
      'BL_INVALID_SHAPE',
      "matmul: columnScale.shape[0] is 63, expected 64 (= a's columns)",
      a,
      { columnScale: Tensor.zeros('f32', [63]) },
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: columnOrder.shape[0] is 63, expected 64 (= b.cols)',
      a,
      { columnOrder: Tensor.zeros('i32', [63]) },
    ],
    [
      'BL_OUT_OF_RANGE',
      'matmul: columnOrder[5] is 64, expected 0 to 63',
      a,
      { columnOrder: new Tensor('i32', order.with(5, 64), [64]) },
    ],
    [
      'BL_OUT_OF_RANGE',
      'matmul: columnOrder[63] is -1, expected 0 to 63',
      a,
      { columnOrder: new Tensor('i32', order.with(63, -1), [64]) },
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: activationBits is 5, expected 4 or 8',
      a,
      { compute: 'i8', activationBits: 5 as never },
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: activationGroup is 64, expected 32 or row',
      a,
      { compute: 'i8', activationGroup: 64 as never },
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: activationBits is 4, which needs compute i8',
      a,
      { activationBits: 4 },
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: activationBits is 4, which needs compute i8',
      a,
      { compute: 'e4m3', activationBits: 4 },
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: activationGroup is given, which needs compute i8 or e4m3',
      a,
      { compute: 'bf16', activationGroup: 'row' },
    ],
    [
      'BL_UNSUPPORTED',
      'matmul: algorithm is tile, which cannot do compute e4m3 of format q4_0, expected algorithm dequant, or compute i8 or bf16',
      a,
      { compute: 'e4m3', algorithm: 'tile' },
    ],
    [
      'BL_UNSUPPORTED',
      'matmul: algorithm is auto, which cannot do compute i1 of format q4_0, expected compute f32 or i8 or bf16 or e4m3',
      a,
      { compute: 'i1' },
    ],
  ])('refuses with %s: %s', (code, message, x, options) => {
    const out = new Tensor('f32', new Float32Array(12).fill(7), [2, 6]);
    expect(thrown(() => matmul(x, b, { ...options, out }))).toMatchObject({ code, message });
    expect(out.data.every((value) => value === 7)).toBe(true);
  });
});
