// Formats with several tables: one of them for each group (cbs), one for each row (lut).
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  dequantize,
  type Format,
  formats,
  pack,
  QuantizedTensor,
  type QuantizeOptions,
  quantize,
  Tensor,
} from '../../lib/index.js';
import { native } from '../../lib/native.js';
import {
  decodeReferenceRow,
  lanesReference,
  parseGroupedFormat,
  referenceRowBytes,
} from '../reference/formats.js';
import { firstDifference, gaussian, randomBytes, squaredError } from '../reference/random.js';
import { halfToNumber } from '../reference/small_floats.js';
import { tables } from './cases.js';

const failing = (call: () => unknown): unknown => {
  try {
    call();
  } catch (error) {
    return [(error as { code: string }).code, (error as Error).message];
  }
  return 'no error';
};
const matrix = (values: ArrayLike<number>, rows: number): Tensor<'f32'> =>
  new Tensor('f32', Float32Array.from(values), [rows, values.length / rows]);
const decoded = (weights: QuantizedTensor): Float32Array => dequantize(weights).data;
/** Bits, so that -0 and 0 differ; all NaN are one. */
const bitsOf = (values: ArrayLike<number>): Uint32Array =>
  new Uint32Array(
    Float32Array.from(values, (value) => (Number.isNaN(value) ? Number.NaN : value)).buffer,
  );
const errorOf = (
  values: Float32Array,
  format: Format,
  options: QuantizeOptions = {},
  rows = 1,
): number => squaredError(decoded(quantize(matrix(values, rows), format, options)), values);

describe('a table for each group', () => {
  it('numbers past the last table mean the last one, whatever the bytes are', () => {
    fc.assert(
      fc.property(
        fc.constantFrom<Format>('cbs2_g32', 'cbs3_g64_bf16', 'cbs4_g128', 'cbs4_g32'),
        fc.integer({ min: 1, max: 256 }),
        fc.integer({ min: 1, max: 36 }),
        fc.integer({ min: 1, max: 150 }),
        (format, count, rows, cols) => {
          const codebook = tables(count, 2 ** parseGroupedFormat(format).bits);
          const bytes = randomBytes(rows * referenceRowBytes(format, cols), cols + count);
          const weights = new QuantizedTensor(format, bytes, [rows, cols], { codebook });
          const rowBytes = referenceRowBytes(format, cols);
          const expected = Array.from({ length: rows }, (_, row) => [
            ...decodeReferenceRow(format, bytes.subarray(row * rowBytes), cols, codebook),
          ]).flat();
          const actual = decoded(weights);
          expect(firstDifference(bitsOf(actual), bitsOf(expected))).toBe(-1);
          const packed = pack(weights);
          expect(firstDifference(packed.bytes, lanesReference(format, bytes, rows, cols))).toBe(-1);
          expect(firstDifference(bitsOf(decoded(packed)), bitsOf(actual))).toBe(-1);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('without tables of its own, has those of BitMoD', () => {
    // Scale 1 (f16 0x3c00), table 0 to 3, codes 0, 1, 2, ...
    for (const [table, special] of [3, -3, 6, -6].entries()) {
      const bytes = new Uint8Array(referenceRowBytes('cbs3_g32', 32));
      bytes.set([0, 0x3c, table, 0b10001000, 0b11000110, 0b11111010]);
      const weights = new QuantizedTensor('cbs3_g32', bytes, [1, 32]);
      expect(Array.from(decoded(weights).slice(0, 8))).toEqual([0, 1, 2, 4, special, -1, -2, -4]);
      expect(weights.codebook).toBeUndefined();
    }
    for (const [table, special] of [5, -5, 8, -8].entries()) {
      const bytes = new Uint8Array(referenceRowBytes('cbs4_g32', 32));
      bytes.set([0, 0x3c, table, 0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe]);
      expect(
        Array.from(decoded(new QuantizedTensor('cbs4_g32', bytes, [1, 32])).slice(0, 16)),
      ).toEqual([0, 0.5, 1, 1.5, 2, 3, 4, 6, special, -0.5, -1, -1.5, -2, -3, -4, -6]);
    }
  });

  it('quantize finds the table that a group was made of, exactly', () => {
    for (const [format, magnitudes, specials] of [
      ['cbs3_g32', [0, 1, 2, 4], [3, -3, 6, -6]],
      ['cbs4_g64', [0, 0.5, 1, 1.5, 2, 3, 4, 6], [5, -5, 8, -8]],
    ] as [Format, number[], number[]][]) {
      for (const [number, special] of specials.entries()) {
        const levels = [...magnitudes, ...magnitudes.slice(1).map((value) => -value), special];
        const { groupSize } = parseGroupedFormat(format);
        const values = Float32Array.from(
          { length: groupSize },
          (_, i) => 0.25 * (levels[i % levels.length] as number),
        );
        const weights = quantize(matrix(values, 1), format);
        expect(weights.bytes[2]).toBe(number);
        expect(Array.from(decoded(weights))).toEqual(Array.from(values));
      }
    }
  });

  it('chooses no worse than any one of its tables', () => {
    const values = gaussian(128 * 8, 5);
    const codebook = tables(6, 16);
    for (const method of ['minmax', 'mse'] as const) {
      const chosen = errorOf(values, 'cbs4_g128', { codebook, method });
      for (let i = 0; i < 6; i++) {
        const one = errorOf(values, 'cb4_g128', {
          codebook: codebook.slice(16 * i, 16 * i + 16),
          method,
        });
        expect(chosen).toBeLessThanOrEqual(one * (1 + 1e-12));
      }
    }
    // The claim of BitMoD: special values instead of a second zero.
    for (const method of ['minmax', 'mse'] as const) {
      const plain = errorOf(values, 'fp4_g128', { method });
      expect(errorOf(values, 'cbs4_g128', { method })).toBeLessThan(0.95 * plain);
    }
  });

  it('refuses tables that are no tables', () => {
    const bad = (format: Format, codebook?: number[]): unknown =>
      failing(() => QuantizedTensor.empty(format, [1, 32], codebook && { codebook }));
    const sizes = (entries: number, size: number, format: string): [string, string] => [
      'BL_INVALID_ARGUMENT',
      `QuantizedTensor: codebook has ${entries} entries, expected 1 to 256 tables of ${size} (format ${format})`,
    ];
    expect(bad('cbs2_g32')).toEqual(sizes(0, 4, 'cbs2_g32'));
    expect(bad('cbs3_g32', [])).toEqual(sizes(0, 8, 'cbs3_g32'));
    expect(bad('cbs3_g32', Array(12).fill(0))).toEqual(sizes(12, 8, 'cbs3_g32'));
    expect(bad('cbs4_g32', Array(257 * 16).fill(0))).toEqual(sizes(257 * 16, 16, 'cbs4_g32'));
    expect(bad('cbs4_g32', Array(32).fill(Number.NaN))).toEqual([
      'BL_NON_FINITE',
      'QuantizedTensor: codebook[0] is NaN, expected a finite number',
    ]);
    expect(bad('cbs4_g32', Array(256 * 16).fill(1))).toBe('no error');
  });

  it('the library checks the tables by itself', () => {
    const out = Tensor.zeros('f32', [1, 32]);
    const decode = (format: Format, codebook: Float32Array | undefined): unknown => {
      const bytes = new Uint8Array(referenceRowBytes(format, 32)).fill(255);
      const descriptor = Float64Array.of(formats[format].id, 0, 1, 32, 1);
      return failing(() =>
        native.dequantize(bytes, descriptor, codebook, out.bytes, out.descriptor, undefined),
      );
    };
    for (const [format, size, entries] of [
      ['cbs2_g32', 4, 0],
      ['cbs2_g32', 4, 6],
      ['cbs3_g32', 8, 4],
      ['cbs3_g32', 8, 257 * 8],
      ['cbs4_g64', 16, 17],
      ['cbs4_g64', 16, 1e6],
    ] as [Format, number, number][]) {
      const codebook = entries === 0 ? undefined : new Float32Array(entries);
      expect(decode(format, codebook)).toEqual([
        'BL_INVALID_ARGUMENT',
        `dequantize: input.codebook has ${entries} entries, expected 1 to 256 tables of ${size} (format ${format})`,
      ]);
    }
    // Number 255 of one table is that table; the scale 0xffff is NaN.
    expect(decode('cbs4_g64', new Float32Array(16).fill(1))).toBe('no error');
    expect(out.data.every(Number.isNaN)).toBe(true);
    // A table of a caller's at any address.
    const shared = new Uint8Array(referenceRowBytes('cbs3_g32', 32));
    shared.set([0, 0x3c, 9, 0b10001000, 0b11000110, 0b11111010]);
    const memory = new Uint8Array(1 + 4 * 8);
    memory.set(new Uint8Array(Float32Array.of(0, 1, 2, 3, 4, 5, 6, 7).buffer), 1);
    const descriptor = Float64Array.of(formats.cbs3_g32.id, 0, 1, 32, 1);
    const unaligned = memory.subarray(1);
    native.dequantize(shared, descriptor, unaligned, out.bytes, out.descriptor, undefined);
    expect(Array.from(out.data.slice(0, 8))).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });
});

describe('a table for each row', () => {
  const rowTable = (weights: QuantizedTensor, row: number): number[] => {
    const bytes = weights.bytes.subarray(row * referenceRowBytes(weights.format, weights.cols));
    const { bits } = parseGroupedFormat(weights.format);
    return Array.from({ length: 2 ** bits }, (_, e) =>
      halfToNumber((bytes[2 * e] as number) | ((bytes[2 * e + 1] as number) << 8)),
    );
  };

  it('rows of few different values come back exactly', () => {
    fc.assert(
      fc.property(
        fc.constantFrom<[Format, number]>(['lut2_row', 4], ['lut3_row', 8], ['lut4_row', 16]),
        fc.integer({ min: 1, max: 70 }),
        fc.integer({ min: 1, max: 1000 }),
        fc.boolean(),
        ([format, most], cols, seed, mse) => {
          // f16 numbers, up to 8.
          const levels = gaussian(most, seed).map((value) => Math.round(value * 256) / 256);
          const picks = randomBytes(cols, seed);
          const values = Float32Array.from(picks, (pick) => levels[pick % most] as number);
          const options = { method: mse ? 'mse' : 'minmax' } as const;
          const weights = quantize(matrix(values, 1), format, options);
          expect(Array.from(decoded(weights), (x) => x + 0)).toEqual(
            Array.from(values, (x) => x + 0),
          );
          const table = rowTable(weights, 0);
          expect(table).toEqual([...table].sort((a, b) => a - b));
        },
      ),
      { numRuns: 100 },
    );
  });

  it('is near the least error for Gaussian weights, and far below a uniform one', () => {
    // Lloyd-Max quantizers of a Gaussian: mean squared errors 0.1175, 0.03454 and 0.009497 (Max 1960). A long row comes
    // near; a fitted one may be below.
    const values = gaussian(8192, 3);
    const power = squaredError(values, new Float32Array(values.length));
    for (const [format, best] of [
      ['lut2_row', 0.1175],
      ['lut3_row', 0.03454],
      ['lut4_row', 0.009497],
    ] as [Format, number][]) {
      const error = errorOf(values, format) / power;
      expect(error).toBeLessThan(1.05 * best);
      expect(error).toBeGreaterThan(0.9 * best);
      expect(errorOf(values, format, { method: 'mse' })).toBeLessThanOrEqual(
        errorOf(values, format),
      );
    }
  });

  it('each level is the weighted mean of its weights', () => {
    const [rows, cols] = [3, 500];
    const values = gaussian(rows * cols, 9);
    const importance = gaussian(rows * cols, 10).map((x) => x * x);
    const weights = quantize(matrix(values, rows), 'lut3_row', {
      importance: matrix(importance, rows),
    });
    const result = decoded(weights);
    for (let row = 0; row < rows; row++) {
      for (const level of rowTable(weights, row)) {
        let [sum, weight] = [0, 0];
        for (let i = row * cols; i < (row + 1) * cols; i++) {
          if (result[i] !== level) continue;
          sum += (importance[i] as number) * (values[i] as number);
          weight += importance[i] as number;
        }
        expect(weight).toBeGreaterThan(0);
        // Rounding levels to f16 may move a weight on a border.
        expect(Math.abs(sum / weight - level)).toBeLessThan(2e-3 * Math.max(1, Math.abs(level)));
      }
    }
  });

  it('importance: per column is that of each row, zero is as none, strides count', () => {
    const values = gaussian(4 * 100, 11);
    const columns = gaussian(100, 12).map(Math.abs);
    const input = matrix(values, 4);
    const one = new Tensor('f32', columns, [100]);
    const each = matrix([...columns, ...columns, ...columns, ...columns], 4);
    const by = (importance: Tensor<'f32'>): Uint8Array =>
      quantize(input, 'lut4_row', { importance }).bytes;
    expect(by(each)).toEqual(by(one));
    const spread = Float32Array.from({ length: 200 }, (_, i) => columns[i >> 1] as number);
    expect(by(new Tensor('f32', spread, [100], { strides: [2] }))).toEqual(by(one));
    const plain = quantize(input, 'lut4_row').bytes;
    expect(by(Tensor.zeros('f32', [100]))).toEqual(plain);
    expect(by(new Tensor('f32', new Float32Array(100).fill(0.5), [100]))).toEqual(plain);
    expect(firstDifference(by(one), plain)).not.toBe(-1);
    // What counts nothing may be far off.
    const spike = values.slice();
    spike[7] = 1000;
    const ignoring = columns.slice();
    ignoring[7] = 0;
    const result = decoded(
      quantize(matrix(spike, 4), 'lut4_row', { importance: new Tensor('f32', ignoring, [100]) }),
    );
    expect(result[7]).toBeLessThan(10);
  });

  it('takes tables that are given, in their order', () => {
    const values = gaussian(3 * 65, 13);
    const codebook = gaussian(3 * 8, 14);
    for (const format of ['lut3_row', 'lut3_row_bf16'] as Format[]) {
      const weights = quantize(matrix(values, 3), format, { codebook });
      const result = decoded(weights);
      for (let i = 0; i < values.length; i++) {
        const row = Math.floor(i / 65);
        const given = new Tensor(format.endsWith('bf16') ? 'bf16' : 'f16', [...codebook], [24]);
        const nearest = given
          .toArray()
          .slice(8 * row, 8 * row + 8)
          .reduce((a, b) =>
            Math.abs(b - (values[i] as number)) < Math.abs(a - (values[i] as number)) ? b : a,
          );
        expect(result[i]).toBe(nearest);
      }
      expect(weights.codebook).toBeUndefined();
    }
    const weights = quantize(matrix(values, 3), 'lut3_row', { codebook });
    expect(rowTable(weights, 1)).toEqual(
      new Tensor('f16', [...codebook], [24]).toArray().slice(8, 16),
    );
  });

  it('any threads give the same bytes', () => {
    const input = matrix(gaussian(40 * 300, 15), 40);
    const one = quantize(input, 'lut4_row_bf16', { threads: 1, method: 'mse' }).bytes;
    for (const threads of [2, 3, 7]) {
      expect(quantize(input, 'lut4_row_bf16', { threads, method: 'mse' }).bytes).toEqual(one);
    }
  });

  it('refuses what it can not take', () => {
    const input = matrix(gaussian(2 * 32), 2);
    const importance = Tensor.zeros('f32', [32]);
    expect(failing(() => quantize(input, 'u4_g32', { importance }))).toEqual([
      'BL_UNSUPPORTED',
      'quantize: importance is given with format u4_g32, expected lut2_row, lut3_row or lut4_row',
    ]);
    const short = Tensor.zeros('f32', [31]);
    expect(failing(() => quantize(input, 'lut2_row', { importance: short }))).toEqual([
      'BL_INVALID_SHAPE',
      'quantize: importance.shape[0] is 31, expected 32 (= output.cols)',
    ]);
    const rows = Tensor.zeros('f32', [3, 32]);
    expect(failing(() => quantize(input, 'lut2_row', { importance: rows }))).toEqual([
      'BL_INVALID_SHAPE',
      'quantize: importance.shape[0] is 3, expected 2 (= output.rows)',
    ]);
    const negative = new Tensor('f32', new Float32Array(32).fill(-1), [32]);
    expect(failing(() => quantize(input, 'lut2_row', { importance: negative }))).toEqual([
      'BL_OUT_OF_RANGE',
      'quantize: importance[0, 0] is -1, expected a finite number of at least 0',
    ]);
    const half = Tensor.zeros('f16', [32]) as unknown as Tensor<'f32'>;
    expect(failing(() => quantize(input, 'lut2_row', { importance: half }))).toEqual([
      'BL_INVALID_DTYPE',
      'quantize: importance.dtype is f16, expected f32',
    ]);
    expect(failing(() => quantize(input, 'lut2_row', { codebook: [1, 2, 3, 4] }))).toEqual([
      'BL_INVALID_ARGUMENT',
      'quantize: output.codebook has 4 entries, expected 2 x 4 (a table for each row)',
    ]);
    expect(
      failing(() => quantize(input, 'lut2_row', { codebook: Array(8).fill(Number.NaN) })),
    ).toEqual(['BL_NON_FINITE', 'quantize: codebook[0] is NaN, expected a finite number']);
    expect(failing(() => QuantizedTensor.empty('lut4_row', [1, 1], { codebook: [1] }))).toEqual([
      'BL_INVALID_ARGUMENT',
      'QuantizedTensor: format lut4_row takes no codebook',
    ]);
  });
});
