// The scale of a whole matrix: a factor of every decoded weight in any format.
import { describe, expect, it } from 'vitest';
import {
  dequantize,
  embedding,
  type Format,
  formats,
  pack,
  QuantizedTensor,
  quantize,
  quantizeAsync,
  sequence,
  Tensor,
} from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { gaussian, squaredError } from '../reference/random.js';

const some: Format[] = [
  'f32',
  'q4_0',
  'q6_k',
  'mxfp4',
  'u4z_g32',
  'i7_row',
  'bfp5_g8',
  'nvfp4_g16',
];
const failing = (call: () => unknown): unknown => {
  try {
    call();
  } catch (error) {
    return [(error as { code: string }).code, (error as Error).message];
  }
  return 'no error';
};

describe('tensorScale', () => {
  const values = gaussian(5 * 256, 3);
  const input = new Tensor('f32', values, [5, 256]);

  it.each(some)('%s: multiplies what is decoded, rounded to f32', (format) => {
    const plain = quantize(input, format, { tensorScale: 1 });
    for (const tensorScale of [0.3, 2 ** -140, 1e30]) {
      const scaled = new QuantizedTensor(format, plain.bytes, [5, 256], { tensorScale });
      expect(scaled.tensorScale).toBe(Math.fround(tensorScale));
      const expected = dequantize(plain).data.map((value) => value * scaled.tensorScale);
      expect(dequantize(scaled).data).toEqual(expected);
      const ids = new Tensor('i32', [3, 0], [2]);
      expect(embedding(scaled, ids).data.subarray(0, 256)).toEqual(expected.subarray(768, 1024));
      const packed = pack(scaled);
      expect(packed.tensorScale).toBe(scaled.tensorScale);
      expect(dequantize(packed).data).toEqual(expected);
      const half = dequantize(scaled, { out: Tensor.zeros('bf16', [5, 256]) });
      expect(half.bytes).toEqual(new Tensor('bf16', [...expected], [5, 256]).bytes);
    }
  });

  it.each(some)('%s: quantize divides by it', (format) => {
    const tensorScale = 0.37;
    const divided = new Tensor(
      'f32',
      values.map((value) => value / Math.fround(tensorScale)),
      [5, 256],
    );
    const expected = quantize(divided, format, { tensorScale: 1 }).bytes;
    const actual = quantize(input, format, { tensorScale });
    expect(actual.bytes).toEqual(expected);
    const out = QuantizedTensor.empty(format, [5, 256], { tensorScale });
    expect(quantize(input, format, { out }).bytes).toEqual(expected);
  });

  it('quotients beyond f32 saturate', () => {
    const large = new Tensor('f32', [1e30, -1e30], [1, 2]);
    const weights = quantize(large, 'f32', { tensorScale: 1e-30 });
    const most = 3.4028234663852886e38;
    expect([...new Float32Array(weights.bytes.buffer)]).toEqual([most, -most]);
  });

  it.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY, 1e39, 1e-50, '2' as unknown as number])(
    'is refused when it is %s',
    (tensorScale) => {
      expect(failing(() => QuantizedTensor.empty('q4_0', [1, 32], { tensorScale }))).toEqual([
        'BL_INVALID_ARGUMENT',
        `QuantizedTensor: tensorScale is ${tensorScale}, expected a positive number that f32 holds`,
      ]);
    },
  );

  it('is checked by the C library as well, where 0 means 1', () => {
    const weights = quantize(input, 'q4_0');
    const out = Tensor.zeros('f32', [5, 256]);
    const run = (scale: number): void =>
      native.dequantize(
        weights.bytes,
        Float64Array.of(formats.q4_0.id, 0, 5, 256, scale),
        undefined,
        out.bytes,
        out.descriptor,
        undefined,
      );
    run(0);
    expect(out.data).toEqual(dequantize(weights).data);
    for (const bad of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(failing(() => run(bad))).toEqual([
        'BL_INVALID_ARGUMENT',
        expect.stringContaining('expected a finite number of at least 0 (0: 1)'),
      ]);
    }
  });

  it('is given by out or by the option, and kept by pack', () => {
    const out = QuantizedTensor.empty('q4_0', [5, 256]);
    expect(failing(() => quantize(input, 'q4_0', { out, tensorScale: 2 }))).toEqual([
      'BL_INVALID_ARGUMENT',
      'quantize: tensorScale and out are both given, expected the tensorScale in out',
    ]);
    const scaled = quantize(input, 'q4_0', { tensorScale: 2 });
    expect(failing(() => pack(scaled, { out, layout: 'canonical' }))).toEqual([
      'BL_INVALID_ARGUMENT',
      'pack: out.tensorScale is 1, expected 2 (= input.tensorScale)',
    ]);
  });
});

describe('nvfp4_g16 by itself', () => {
  it('has the tensor scale of the standard: the largest magnitude / (6 * 448)', async () => {
    const values = gaussian(7 * 100, 5, 3e-4);
    const largest = Math.max(...values.map(Math.abs));
    const weights = quantize(new Tensor('f32', values, [7, 100]), 'nvfp4_g16');
    expect(weights.tensorScale).toBe(Math.fround(largest / 2688));
    // A block of 16 four-bit floats: 0.095 of the weights' magnitude on Gaussian ones.
    const power = squaredError(values, new Float32Array(values.length));
    expect(Math.sqrt(squaredError(dequantize(weights).data, values) / power)).toBeLessThan(0.11);
    const strided = new Tensor('f32', values, [100, 7], { strides: [1, 100] });
    expect(quantize(strided, 'nvfp4_g16').tensorScale).toBe(weights.tensorScale);
    const half = new Tensor('f16', [1, -2.5], [1, 2]);
    expect((await quantizeAsync(half, 'nvfp4_g16')).tensorScale).toBe(Math.fround(2.5 / 2688));
  });

  it.each([
    ['zeros', 0],
    ['the smallest f32', 2 ** -149],
    ['the largest f32', 3.4028234663852886e38],
  ])('%s', (_, value) => {
    const weights = quantize(new Tensor('f32', [value, -value, 0], [1, 3]), 'nvfp4_g16');
    const [first, second, third] = dequantize(weights).data;
    expect(third).toBe(0);
    expect((second as number) + (first as number)).toBe(0);
    expect(Math.abs((first as number) - value)).toBeLessThanOrEqual(
      value > 1 ? value * 1e-6 : 2 ** -149,
    );
  });

  it('reports what is not finite', () => {
    const bad = new Tensor('f32', [1, Number.NEGATIVE_INFINITY, Number.NaN], [1, 3]);
    expect(failing(() => quantize(bad, 'nvfp4_g16'))).toEqual([
      'BL_NON_FINITE',
      'quantize: input[0, 1] is -Infinity, expected a finite number',
    ]);
  });

  it('wants the scale within a sequence, where the input may have no values yet', async () => {
    const input = new Tensor('f32', [1, 2], [1, 2]);
    await expect(sequence(() => quantize(input, 'nvfp4_g16'))).rejects.toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
      message: expect.stringContaining('needs tensorScale'),
    });
    const weights = await sequence(() => quantize(input, 'nvfp4_g16', { tensorScale: 2 / 2688 }));
    expect(dequantize(weights).data[1]).toBeCloseTo(2, 6);
  });
});
