import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  dequantize,
  type Format,
  formats,
  QuantizedTensor,
  type QuantizeMethod,
  quantize,
  quantizeAsync,
  Tensor,
} from '../../lib/index.js';
import { parseGroupedFormat } from '../reference/formats.js';
import { firstDifference, gaussian, squaredError } from '../reference/random.js';
import { codebookOf, colsOf, formatNames, quantized } from './cases.js';

const methods: QuantizeMethod[] = ['minmax', 'mse'];
const decoded = (weights: QuantizedTensor): Float32Array => dequantize(weights).data;
const largest = (values: ArrayLike<number>): number =>
  Array.from(values).reduce((max, value) => Math.max(max, Math.abs(value)), 0);

/** Weights that are hard on scales: name and values for n weights. */
const inputs: Record<string, (n: number) => Float32Array> = {
  gaussian: (n) => gaussian(n, 3),
  zero: (n) => new Float32Array(n),
  'one spike': (n) => Float32Array.from({ length: n }, (_, i) => (i === n >> 1 ? -8 : 0)),
  constant: (n) => new Float32Array(n).fill(0.3),
  negative: (n) => gaussian(n, 4).map((value) => -1 - Math.abs(value)),
  'f32 denormal': (n) => gaussian(n, 5, 1e-41),
  'f16 denormal': (n) => gaussian(n, 6, 1e-6),
  'beyond f16': (n) => gaussian(n, 7, 1e6),
  'largest f32': (n) =>
    gaussian(n, 8).map((value) => (value < 0 ? -3.4028234663852886e38 : 3.4028234663852886e38)),
};

describe('every format, length and kind of input', () => {
  it.each(formatNames)('%s: finite, deterministic, mse no worse', (format) => {
    const lengths = colsOf(format);
    for (const cols of lengths) {
      for (const [name, make] of Object.entries(inputs)) {
        if (cols !== lengths.at(-1) && name !== 'gaussian') continue;
        const values = make(cols);
        const [minmax, mse] = methods.map((method) => {
          const weights = quantized(format, values, [1, cols], method);
          const again = quantized(format, values, [1, cols], method);
          expect(firstDifference(weights.bytes, again.bytes), name).toBe(-1);
          const result = decoded(weights);
          expect(result.every(Number.isFinite), `${name} ${method} is finite`).toBe(true);
          if (name === 'zero') expect(largest(result), 'zeros stay zeros').toBe(0);
          return squaredError(result, values);
        }) as [number, number];
        // Blocks are compared one by one; only the order of this sum can differ.
        expect(mse, name).toBeLessThanOrEqual(minmax * (1 + 1e-12));
      }
    }
  });
});

describe('error on Gaussian weights', () => {
  // Upper bounds of the relative RMS error: of a uniform quantizer that spans the largest of g Gaussian
  // weights (step = 2 max / 2^b, error = step / sqrt(12)), max about 2.4, 2.7, 3.0 and 3.2 standard
  // deviations for g = 32, 64, 128 and 256, plus a tenth for the spread of max and the scale's rounding.
  const spans: Record<number, number> = { 32: 2.4, 64: 2.7, 128: 3.0, 256: 3.2 };
  const uniform = formatNames.filter((format) => {
    const { kind, bits, groupSize } = formats[format];
    return (kind === 'unsigned' || kind === 'signed') && bits >= 3 && groupSize > 0;
  });
  const values = gaussian(64 * 256, 11);
  const power = squaredError(values, new Float32Array(values.length));

  it.each(uniform)('%s', (format) => {
    const { bits, groupSize } = formats[format];
    const bound = (1.1 * (2 * (spans[groupSize] as number))) / 2 ** bits / Math.sqrt(12);
    // bf16 keeps 8 bits of a scale: up to 1/512 of each weight, and a last code clipped.
    const rounding = format.endsWith('_bf16') ? 1 / 256 : 1 / 2048;
    const error = squaredError(decoded(quantized(format, values, [64, 256])), values);
    expect(Math.sqrt(error / power)).toBeLessThan(bound + rounding);
  });
});

describe('grouped formats choose the nearest code', () => {
  // Group sizes share their code: one of each scale type is enough.
  const nearest = formatNames.filter(
    (format) => /_(g32|row_bf16)$/.test(format) || format === 'nvfp4_g16',
  );

  it.each(nearest)('%s', (format) => {
    const cols = 67;
    const values = gaussian(cols, 21);
    for (const method of methods) {
      const weights = quantized(format, values, [1, cols], method);
      const result = decoded(weights);
      const error = result.map((value, i) => Math.abs(value - (values[i] as number)));
      // Flipping any bit of a code must not bring its weight nearer.
      const { bits, groupSize } = formats[format];
      const elements = groupSize || cols;
      const { header } = parseGroupedFormat(format);
      const blockBytes = weights.bytes.length / Math.ceil(cols / elements);
      for (let i = 0; i < cols; i += 5) {
        for (let bit = 0; bit < bits; bit++) {
          const flipped = weights.bytes.slice();
          const at = (i % elements) * bits + bit;
          const byte = Math.floor(i / elements) * blockBytes + header + (at >> 3);
          flipped[byte] = (flipped[byte] as number) ^ (1 << (at & 7));
          const codebook = codebookOf(format);
          const other = new QuantizedTensor(
            format,
            flipped,
            [1, cols],
            codebook === undefined ? {} : { codebook },
          );
          const value = decoded(other)[i] as number;
          // Encoders do not use NaN, and ternary ones not the fourth code, 2 * scale.
          const group = result.subarray(i - (i % elements), i - (i % elements) + elements);
          const fourth = formats[format].kind === 'ternary' && value > 1.5 * largest(group);
          if (fourth || Number.isNaN(value)) continue;
          expect(Math.abs(value - (values[i] as number))).toBeGreaterThanOrEqual(
            (error[i] as number) * (1 - 1e-6),
          );
        }
      }
    }
  });
});

describe('exact cases', () => {
  const codes = (format: Format, values: number[], method: QuantizeMethod = 'minmax'): number[] =>
    Array.from(decoded(quantized(format, Float32Array.from(values), [1, values.length], method)));

  it('integers on the grid come back', () => {
    const grid = [-8, -7, -3, 0, 1, 5, 7];
    for (const format of ['u4_row', 'i4_g32', 'u4_row_bf16', 'u8_row', 'i5_g64'] as Format[]) {
      expect(codes(format, grid)).toEqual(grid);
    }
  });

  it('ties go to the even code', () => {
    // The scale is -8 / -8 = 1; the whole numbers make it better than 8 / 7.
    const whole = [-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7];
    const halves = [0.5, 1.5, 2.5, -0.5, -1.5];
    expect(codes('u4_row', [...whole, ...halves])).toEqual([...whole, 0, 2, 2, 0, -2]);
    expect(codes('u4z_row', [0, 15, 0.5, 1.5, 2.5])).toEqual([0, 15, 0, 2, 2]);
  });

  it('a zero point keeps zero exact', () => {
    for (const format of ['u2z_row', 'i3z_row', 'u4z_g32', 'i8z_g64_bf16'] as Format[]) {
      for (const method of methods) {
        const result = codes(format, [-0.31, 0, 2.7, 1.1, 0, -0.2], method);
        expect(result[1]).toBe(0);
        expect(result[4]).toBe(0);
      }
    }
  });

  it('ternary scale is the mean magnitude', () => {
    expect(codes('t2_row', [1, -1, 0.25, -1.75, 0, 2])).toEqual([1, -1, 0, -1, 0, 1]);
  });

  it('one-bit scale is the mean magnitude', () => {
    expect(codes('u1_row', [0.5, -1.5, 1, -1])).toEqual([1, -1, 1, -1]);
    expect(codes('i1_row', [0.5, -1.5, 1, -1])).toEqual([1, -1, 1, -1]);
  });

  it('one-bit with a zero point has two free levels under mse', () => {
    const values = [0.5, 2.5, 0.5, 2.5, 2.5];
    expect(codes('u1z_row', values, 'mse')).toEqual(values);
    expect(codes('i1z_row', values, 'mse')).toEqual(values);
  });

  it('of two equal codebook entries the first is used, a tie goes to the first entry', () => {
    const weights = quantize(new Tensor('f32', [4, 1, 2], [1, 3]), 'cb2_row', {
      codebook: [4, 2, 0, 2],
    });
    // 1 lies between the entries 2 (index 1) and 0 (index 2).
    expect(weights.bytes[2]).toBe(0b01_01_00);
  });

  it('scales saturate at the largest f16', () => {
    const [value] = codes('u8_row', [3e38]);
    expect(value).toBe(-65504 * -128);
  });
});

describe('inputs and threads', () => {
  const values = gaussian(23 * 96, 31);

  it.each(['u4_g32', 'i3z_row', 'q4_k', 'cb3_g64', 'tq2_0'] as Format[])(
    '%s: threads give the same bytes',
    (format) => {
      const shape: [number, number] = formats[format].blockElements === 256 ? [8, 256] : [23, 96];
      const part = values.subarray(0, shape[0] * shape[1]);
      const codebook = codebookOf(format);
      const bytes = [1, 2, 3, 7].map(
        (threads) =>
          quantize(new Tensor('f32', part, shape), format, {
            threads,
            method: 'mse',
            ...(codebook === undefined ? {} : { codebook }),
          }).bytes,
      );
      const [one, ...others] = bytes as [Uint8Array, ...Uint8Array[]];
      for (const other of others) expect(firstDifference(other, one)).toBe(-1);
    },
  );

  it('f16, bf16, strided and unaligned inputs give the bytes of the same values in f32', () => {
    for (const format of ['q5_1', 'u6_row', 'nf4_g64'] as Format[]) {
      for (const dtype of ['f16', 'bf16'] as const) {
        const small = new Tensor(dtype, Array.from(values), [23, 96]);
        const wide = quantize(new Tensor('f32', small.toArray(), [23, 96]), format);
        expect(quantize(small, format).bytes).toEqual(wide.bytes);
      }
      const expected = quantize(new Tensor('f32', values, [23, 96]), format).bytes;
      const memory = new Uint8Array(values.byteLength + 1);
      memory.set(new Uint8Array(values.buffer), 1);
      const unaligned = new Tensor('f32', memory.subarray(1), [23, 96]);
      expect(quantize(unaligned, format).bytes).toEqual(expected);
      const columns = new Float32Array(values.length);
      for (let i = 0; i < values.length; i++) {
        columns[(i % 96) * 23 + Math.floor(i / 96)] = values[i] as number;
      }
      const transposed = new Tensor('f32', columns, [23, 96], { strides: [1, 23] });
      expect(quantize(transposed, format).bytes).toEqual(expected);
    }
  });

  it('writes into out, and on a worker thread', async () => {
    const input = new Tensor('f32', values, [23, 96]);
    const out = QuantizedTensor.empty('q8_0', [23, 96]);
    expect(quantize(input, 'q8_0', { out })).toBe(out);
    expect((await quantizeAsync(input, 'q8_0')).bytes).toEqual(out.bytes);
  });

  it('quantizing decoded weights again changes nothing on integer grids', () => {
    fc.assert(
      fc.property(
        fc.constantFrom<Format>('u4_g32', 'i6_g64', 'u8_row', 't2_g32', 'u1_g32', 'q8_0'),
        fc.integer({ min: 1, max: 1e6 }),
        (format, seed) => {
          const once = decoded(quantized(format, gaussian(64, seed), [1, 64], 'mse'));
          const twice = decoded(quantized(format, once, [1, 64], 'mse'));
          const power = squaredError(once, new Float32Array(64));
          expect(squaredError(twice, once)).toBeLessThanOrEqual(1e-3 * power);
        },
      ),
      { numRuns: 50 },
    );
  });
});
