import { describe, expect, it } from 'vitest';
import { type Format, QuantizedTensor, quantize, Tensor } from '../../lib/index.js';
import { gaussian } from '../reference/random.js';

describe('quantize refuses', () => {
  const failing = (call: () => unknown): unknown => {
    try {
      call();
    } catch (error) {
      return [(error as { code: string }).code, (error as Error).message];
    }
    return 'no error';
  };
  const input = new Tensor('f32', gaussian(4 * 64), [4, 64]);

  it.each([
    [Number.NaN, 'NaN'],
    [Number.POSITIVE_INFINITY, 'Infinity'],
    [Number.NEGATIVE_INFINITY, '-Infinity'],
  ])('%s is reported with its place, and nothing is written', (value, text) => {
    for (const dtype of ['f32', 'f16', 'bf16'] as const) {
      const values = Array.from(gaussian(9 * 512));
      values[7 * 512 + 300] = value;
      values[8 * 512] = value;
      const out = QuantizedTensor.empty('q4_0', [9, 512]);
      const bad = new Tensor(dtype, values, [9, 512]);
      expect(failing(() => quantize(bad, 'q4_0', { out }))).toEqual([
        'BL_NON_FINITE',
        `quantize: input[7, 300] is ${text}, expected a finite number`,
      ]);
      expect(Math.max(...out.bytes)).toBe(0);
    }
  });

  it('shapes', () => {
    const out = QuantizedTensor.empty('q4_0', [3, 64]);
    expect(failing(() => quantize(input, 'q4_0', { out }))).toEqual([
      'BL_INVALID_SHAPE',
      'quantize: output.rows is 3, expected 4 (= input.shape[0])',
    ]);
    const wide = QuantizedTensor.empty('q4_0', [4, 96]);
    expect(failing(() => quantize(input, 'q4_0', { out: wide }))).toEqual([
      'BL_INVALID_SHAPE',
      'quantize: output.cols is 96, expected 64 (= input.shape[1])',
    ]);
    expect(failing(() => quantize(new Tensor('f32', [1, 2], [2]), 'q4_0'))).toEqual([
      'BL_INVALID_SHAPE',
      'quantize: input.rank is 1, expected 2',
    ]);
    expect(failing(() => quantize(input, 'q4_k'))).toEqual([
      'BL_INVALID_SHAPE',
      expect.stringContaining('cols is 64, expected a multiple of 256'),
    ]);
  });

  it('format, method, layout and dtype', () => {
    expect(failing(() => quantize(input, 'q9_9' as Format))).toEqual([
      'BL_INVALID_FORMAT',
      expect.stringContaining('"q9_9"'),
    ]);
    const out = QuantizedTensor.empty('q4_1', [4, 64]) as unknown as QuantizedTensor<'q4_0'>;
    expect(failing(() => quantize(input, 'q4_0', { out }))).toEqual([
      'BL_INVALID_FORMAT',
      'quantize: out.format is q4_1, expected q4_0',
    ]);
    expect(failing(() => quantize(input, 'q4_0', { method: 'best' as 'mse' }))).toEqual([
      'BL_INVALID_ARGUMENT',
      'quantize: method is "best", expected minmax or mse',
    ]);
    const panels = QuantizedTensor.empty('q4_0', [4, 64], { layout: 'lanes16' });
    expect(failing(() => quantize(input, 'q4_0', { out: panels }))).toEqual([
      'BL_INVALID_LAYOUT',
      'quantize: output.layout is lanes16, expected canonical',
    ]);
    const integers = Tensor.zeros('i32', [4, 64]) as unknown as Tensor<'f32'>;
    expect(failing(() => quantize(integers, 'q4_0'))).toEqual([
      'BL_INVALID_DTYPE',
      'quantize: input.dtype is i32, expected f32 or f16 or bf16',
    ]);
  });

  it('codebooks', () => {
    expect(failing(() => quantize(input, 'cb2_g32'))).toEqual([
      'BL_INVALID_ARGUMENT',
      expect.stringContaining('codebook has 0 entries, expected 4 (format cb2_g32)'),
    ]);
    expect(failing(() => quantize(input, 'cb2_g32', { codebook: [0, 1, 2] }))).toEqual([
      'BL_INVALID_ARGUMENT',
      expect.stringContaining('codebook has 3 entries, expected 4'),
    ]);
    expect(failing(() => quantize(input, 'cb1_g32', { codebook: [0, Number.NaN] }))).toEqual([
      'BL_NON_FINITE',
      expect.stringContaining('codebook[1] is NaN'),
    ]);
    // The table is the caller's memory: it may have changed since the object was made.
    const codebook = Float32Array.of(-1, 1);
    const out = QuantizedTensor.empty('cb1_g32', [4, 64], { codebook });
    codebook[0] = Number.POSITIVE_INFINITY;
    expect(failing(() => quantize(input, 'cb1_g32', { out }))).toEqual([
      'BL_NON_FINITE',
      'quantize: output.codebook[0] is inf, expected a finite number',
    ]);
    expect(failing(() => quantize(input, 'cb1_g32', { out, codebook }))).toEqual([
      'BL_INVALID_ARGUMENT',
      'quantize: codebook and out are both given, expected the codebook in out',
    ]);
  });

  it('overlap', () => {
    const memory = new Float32Array(4 * 64);
    const out = new QuantizedTensor('q8_0', memory, [4, 64]);
    expect(failing(() => quantize(new Tensor('f32', memory, [4, 64]), 'q8_0', { out }))).toEqual([
      'BL_INVALID_ARGUMENT',
      'quantize: output overlaps input, expected separate memory',
    ]);
  });

  it('run', () => {
    expect(failing(() => quantize(input, 'q8_0', { threads: 0 }))).toEqual([
      'BL_INVALID_ARGUMENT',
      'run: threads is 0, expected 1 to 256',
    ]);
  });

  it('empty matrices are no error', () => {
    expect(quantize(new Tensor('f32', [], [0, 64]), 'q4_0').bytes.length).toBe(0);
    expect(quantize(new Tensor('f32', [], [3, 0]), 'u4_row').bytes.length).toBe(0);
  });
});
