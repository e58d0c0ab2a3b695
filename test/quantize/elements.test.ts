// Formats of small elements with a one-byte scale: block floating point, OCP Microscaling, MXFP4 and NVFP4.
import { describe, expect, it } from 'vitest';
import {
  dequantize,
  type Format,
  formats,
  QuantizedTensor,
  type QuantizeMethod,
  quantize,
  Tensor,
} from '../../lib/index.js';
import { firstDifference, gaussian, squaredError } from '../reference/random.js';
import { formatNames, quantized } from './cases.js';

const methods: QuantizeMethod[] = ['minmax', 'mse'];
const smallElements = formatNames.filter((format) => /^(bfp|e\dm|mx|nv)/.test(format));
/** A power of two as scale in the first byte of a block. */
const powerScaled = smallElements.filter((format) => !format.startsWith('nvfp4'));
const blockOf = (format: Format): number => formats[format].blockElements;

function decoded(weights: QuantizedTensor): number[] {
  return dequantize(weights).toArray();
}
function roundTrip(format: Format, values: number[], method: QuantizeMethod = 'minmax'): number[] {
  const cols = Math.ceil(values.length / blockOf(format)) * blockOf(format);
  const padded = Float32Array.from({ length: cols }, (_, i) => values[i] ?? 0);
  return decoded(
    quantize(new Tensor('f32', padded, [1, cols]), format, { method, tensorScale: 1 }),
  ).slice(0, values.length);
}
/** A block of a scale byte and codes of whole bytes. */
const block = (format: Format, scale: number, codes: number[]): number[] =>
  decoded(
    new QuantizedTensor(
      format,
      Uint8Array.from({ length: formats[format].blockBytes }, (_, i) =>
        i === 0 ? scale : (codes[i - 1] ?? 0),
      ),
      [1, blockOf(format)],
    ),
  );

describe('elements', () => {
  it('there are as many as the list says', () => {
    expect(smallElements).toHaveLength(7 * 5 + 5 * 5 + 1 + 1 + 2);
  });

  // Tables of OCP Microscaling v1.0 and OCP 8-bit Floating Point v1.0: largest, smallest normal, smallest.
  it.each<[Format, number, [code: number, value: number][]]>([
    [
      'e4m3_g8',
      8,
      [
        [0x7e, 448],
        [0x08, 2 ** -6],
        [0x01, 2 ** -9],
        [0x7f, Number.NaN],
        [0xff, Number.NaN],
        [0x80, -0],
      ],
    ],
    [
      'e5m2_g8',
      8,
      [
        [0x7b, 57344],
        [0x04, 2 ** -14],
        [0x01, 2 ** -16],
        [0x7c, Number.POSITIVE_INFINITY],
        [0xfc, Number.NEGATIVE_INFINITY],
        [0xfd, Number.NaN],
      ],
    ],
    [
      'e3m2_g8',
      6,
      [
        [0x1f, 28],
        [0x04, 0.25],
        [0x01, 0.0625],
        [0x3f, -28],
      ],
    ],
    [
      'e2m3_g8',
      6,
      [
        [0x1f, 7.5],
        [0x08, 1],
        [0x01, 0.125],
        [0x3f, -7.5],
      ],
    ],
    [
      'e2m1_g8',
      4,
      [
        [0x7, 6],
        [0x2, 1],
        [0x1, 0.5],
        [0xf, -6],
      ],
    ],
    [
      'mxint8_g32',
      8,
      [
        [0x7f, 1.984375],
        [0x01, 2 ** -6],
        [0x80, -2],
        [0xff, -(2 ** -6)],
      ],
    ],
    [
      'bfp5_g8',
      5,
      [
        [15, 15],
        [16, -16],
        [31, -1],
      ],
    ],
  ])('%s has the values of its specification', (format, bits, table) => {
    for (const [code, value] of table) {
      // The code is the block's first; a scale byte of 127 is 1, and one of 0 is 2^-127.
      const codes = [code & 255];
      expect(code).toBeLessThan(2 ** bits);
      expect(block(format, 127, codes)[0]).toBe(value);
      expect(block(format, 0, codes)[0]).toBe(value * 2 ** -127);
      expect(block(format, 254, codes)[0]).toBe(Math.fround(value * 2 ** 127));
    }
  });

  it.each(powerScaled)('%s: a scale byte of 255 is NaN', (format) => {
    expect(block(format, 255, [0x21, 0x43]).every(Number.isNaN)).toBe(true);
  });

  it('nvfp4: scales without sign, 127 is NaN', () => {
    for (const format of ['nvfp4_g16', 'nvfp4'] as const) {
      const codes = new Array(35).fill(0x77);
      const scales = format === 'nvfp4' ? 4 : 1;
      const first = (scale: number) =>
        block(format, scale, codes.with(0, scale).with(1, scale).with(2, scale)).slice(4, 16);
      expect(scales * 9).toBe(formats[format].blockBytes);
      expect(first(0x7f).every(Number.isNaN)).toBe(true);
      expect(first(0xff).every(Number.isNaN)).toBe(true);
      expect(first(0xb8).at(-1)).toBe(block(format, 0x38, codes).at(15));
      expect(first(0x7e).at(-1)).toBe(448 * 6);
    }
  });
});

describe('encoding', () => {
  it('rounds to nearest, ties to even mantissas; the GGUF types towards zero', () => {
    const values = [6, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -0.75, -3.5, -5, 0.26];
    const even = [6, 0, 1, 1, 2, 2, 4, 4, -1, -4, -4, 0.5];
    const low = [6, 0, 0.5, 1, 1.5, 2, 3, 4, -0.5, -3, -4, 0.5];
    expect(roundTrip('e2m1_g32', values).map((value) => value + 0)).toEqual(even);
    expect(roundTrip('nvfp4_g16', values).map((value) => value + 0)).toEqual(even);
    expect(roundTrip('mxfp4', values).map((value) => value + 0)).toEqual(low);
    expect(roundTrip('nvfp4', values).map((value) => value + 0)).toEqual(low);
    expect(roundTrip('bfp4_g16', [-8, 0.5, 1.5, 2.5, -0.5, -1.5, 7]).map((v) => v + 0)).toEqual([
      -8, 0, 2, 2, 0, -2, 7,
    ]);
  });

  it('minmax puts the largest weight into the binade of the largest element', () => {
    const largest: Partial<Record<Format, number>> = {
      e2m1_g16: 2,
      e2m3_g16: 2,
      e3m2_g16: 4,
      e4m3_g16: 8,
      e5m2_g16: 15,
      mxint8_g32: 0,
      mxfp4: 2,
    };
    for (const [format, top] of Object.entries(largest) as [Format, number][]) {
      for (const seed of [1, 2, 3, 4]) {
        const values = gaussian(blockOf(format), seed, 2 ** (7 * seed - 20));
        const max = Math.max(...values.map(Math.abs));
        const { bytes } = quantized(format, values, [1, values.length]);
        expect(bytes[0]).toBe(Math.floor(Math.log2(max)) - top + 127);
      }
    }
  });

  it('the largest weights saturate instead of becoming infinity or NaN', () => {
    // 511 lies in the binade of E4M3's largest element, 448, and 63e3 in that of E5M2's, 57344.
    expect(roundTrip('e4m3_g8', [511, -511, 256])).toEqual([448, -448, 256]);
    expect(roundTrip('e5m2_g8', [63e3, -63e3, 16384])).toEqual([57344, -57344, 16384]);
    expect(roundTrip('mxint8_g32', [1.999, -1.999])).toEqual([1.984375, -2]);
  });

  it('a largest weight of -2^n is exact in integers', () => {
    for (const format of ['bfp2_g8', 'bfp5_g8', 'bfp8_g16', 'mxint8_g32'] as Format[]) {
      expect(roundTrip(format, [-4, 0, -2])).toEqual([-4, 0, -2]);
    }
    expect(roundTrip('bfp8_g16', [-128, 127, -1, 64, 3])).toEqual([-128, 127, -1, 64, 3]);
  });

  it.each(powerScaled)('%s: mse finds the best of all exponents on Gaussian weights', (format) => {
    const size = blockOf(format);
    const values = gaussian(4 * size, 17);
    const weights = quantized(format, values, [4, size], 'mse');
    const minmax = quantized(format, values, [4, size]);
    const { blockBytes } = formats[format];
    for (let row = 0; row < 4; row++) {
      const part = values.subarray(row * size, (row + 1) * size);
      const at = (exponent: number): number => bestError(format, part, exponent);
      const errors = [-6, -5, -4, -3, -2, -1, 0, 1, 2].map((offset) =>
        at((minmax.bytes[row * blockBytes] as number) + offset),
      );
      const found = squaredError(
        dequantize(weights).data.subarray(row * size, (row + 1) * size),
        part,
      );
      expect(found).toBeLessThanOrEqual(Math.min(...errors) * (1 + 1e-12));
    }
  });

  /** Least squared error with a given scale byte: every weight at the nearest of all elements. */
  function bestError(format: Format, values: Float32Array, exponent: number): number {
    const levels = levelsOf(format).map((level) => level * 2 ** (exponent - 127));
    return values.reduce((sum, value) => {
      const distance = Math.min(...levels.map((level) => Math.abs(level - value)));
      return sum + distance ** 2;
    }, 0);
  }

  /** All finite elements, each decoded as the first of a block. */
  function levelsOf(format: Format): number[] {
    const known = levels.get(format);
    if (known !== undefined) return known;
    const bits = formats[format].bits || 4;
    const made = Array.from(
      { length: 2 ** bits },
      (_, code) => block(format, 127, [code])[0] as number,
    ).filter(Number.isFinite);
    levels.set(format, made);
    return made;
  }
  const levels = new Map<Format, number[]>();

  it.each(smallElements)('%s: encoding decoded weights again changes nothing', (format) => {
    // Row lengths that do not fill the last block too, where the format takes them.
    const cols = formats[format].kind === 'block' ? 128 : 131;
    for (const method of methods) {
      const values = gaussian(3 * cols, 29, 0.02);
      const options = { method, tensorScale: 2 ** -12 };
      const once = quantize(new Tensor('f32', values, [3, cols]), format, options);
      const result = dequantize(once);
      const twice = dequantize(quantize(result, format, options));
      expect(firstDifference(twice.data, result.data), method).toBe(-1);
    }
  });
});
