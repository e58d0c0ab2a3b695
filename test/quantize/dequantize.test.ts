import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  dequantize,
  dequantizeAsync,
  type Format,
  formats,
  pack,
  QuantizedTensor,
  Tensor,
} from '../../lib/index.js';
import {
  decodeReferenceRow,
  lanesReference,
  referenceFormatNames,
  referenceRowBytes,
} from '../reference/formats.js';
import { firstDifference, randomBytes } from '../reference/random.js';
import { codebookOf, colsOf, formatNames } from './cases.js';

/** Random bytes are valid in every format, but for scales that are infinite or NaN. */
function randomWeights(format: Format, rows: number, cols: number, seed: number): QuantizedTensor {
  const bytes = randomBytes(rows * referenceRowBytes(format, cols), seed);
  const codebook = codebookOf(format);
  return new QuantizedTensor(format, bytes, [rows, cols], codebook ? { codebook } : {});
}

function referenceValues(weights: QuantizedTensor): Float32Array {
  const { format, rows, cols, bytes, codebook } = weights;
  const rowBytes = referenceRowBytes(format, cols);
  const values = new Float32Array(rows * cols);
  for (let row = 0; row < rows; row++) {
    const part = bytes.subarray(row * rowBytes, (row + 1) * rowBytes);
    values.set(decodeReferenceRow(format, part, cols, codebook), row * cols);
  }
  return values;
}

/** Bits, so that -0 and 0 differ; all NaN are one. */
const bitsOf = (values: Float32Array): Uint32Array =>
  new Uint32Array(values.map((value) => (Number.isNaN(value) ? Number.NaN : value)).buffer);

it('the reference knows every format', () => {
  expect(referenceFormatNames()).toEqual(formatNames);
});

describe('decodes every byte as the definition says', () => {
  it.each(formatNames)('%s', (format) => {
    for (const [seed, cols] of colsOf(format).entries()) {
      const weights = randomWeights(format, 3, cols, seed + 1);
      const expected = referenceValues(weights);
      expect(firstDifference(bitsOf(dequantize(weights).data), bitsOf(expected))).toBe(-1);
    }
  });
});

describe('pack', () => {
  it.each(formatNames)('%s: sixteen rows side by side and back', (format) => {
    const cols = colsOf(format).at(-1) as number;
    for (const rows of [11, 35]) {
      const weights = randomWeights(format, rows, cols, 5);
      const packed = pack(weights);
      expect(packed.layout).toBe('lanes16');
      const values = bitsOf(dequantize(weights).data);
      expect(firstDifference(bitsOf(dequantize(packed).data), values)).toBe(-1);
      const unpacked = pack(packed, { layout: 'canonical' });
      expect(firstDifference(bitsOf(dequantize(unpacked).data), values)).toBe(-1);
      // Bytes too, where each has a meaning: five trits have 243 codes of 256, and a row may end within a byte.
      if (
        format === 'tq1_0' ||
        (formats[format].groupSize === 0 && (cols * formats[format].bits) % 8 !== 0)
      )
        continue;
      expect(firstDifference(unpacked.bytes, weights.bytes)).toBe(-1);
    }
  });

  it('keeps the layout when asked for the same one', () => {
    const weights = randomWeights('u3_g32', 9, 40, 2);
    expect(pack(weights, { layout: 'canonical' }).bytes).toEqual(weights.bytes);
    const packed = pack(weights);
    expect(pack(packed).bytes).toEqual(packed.bytes);
  });

  it('any shape, any threads', () => {
    fc.assert(
      fc.property(
        fc.constantFrom<Format>('u1_g32', 'u5z_g64', 'i3_row', 'u6_g128', 't2_g128_bf16'),
        fc.integer({ min: 0, max: 40 }),
        fc.integer({ min: 0, max: 6 }),
        fc.constantFrom(1, 2, 7),
        (format, rows, blocks, threads) => {
          const cols = blocks * 31;
          const weights = randomWeights(format, rows, cols, rows + 1);
          const packed = pack(weights, { threads });
          expect(
            firstDifference(packed.bytes, lanesReference(format, weights.bytes, rows, cols)),
          ).toBe(-1);
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('outputs', () => {
  const weights = randomWeights('i8_g32', 5, 70, 3);
  const values = dequantize(weights).toArray();

  it('f16 and bf16 are the f32 values rounded to nearest even', () => {
    for (const dtype of ['f16', 'bf16'] as const) {
      const out = Tensor.zeros(dtype, [5, 70]);
      expect(dequantize(weights, { out })).toBe(out);
      expect(out.data).toEqual(new Tensor(dtype, values, [5, 70]).data);
    }
  });

  it('strided and unaligned memory; what lies between is not touched', () => {
    const bytes = new Uint8Array(1 + 4 * 5 * 100).fill(7);
    const out = new Tensor('f32', bytes.subarray(1), [5, 70], { strides: [100, 1] });
    dequantize(weights, { out });
    expect(out.toArray()).toEqual(values);
    expect(bytes.subarray(1 + 4 * 70, 1 + 4 * 100).every((byte) => byte === 7)).toBe(true);

    const transposed = new Tensor('f32', new Float32Array(350), [5, 70], { strides: [1, 5] });
    dequantize(weights, { out: transposed });
    expect(transposed.toArray()).toEqual(values);
  });

  it('the same on a worker thread', async () => {
    expect((await dequantizeAsync(weights)).toArray()).toEqual(values);
  });

  it('empty matrices', () => {
    for (const shape of [
      [0, 32],
      [3, 0],
      [0, 0],
    ] as [number, number][]) {
      expect(dequantize(QuantizedTensor.empty('q4_0', shape)).size).toBe(0);
      expect(dequantize(pack(QuantizedTensor.empty('u4_row', shape))).shape).toEqual(shape);
    }
  });
});

describe('errors', () => {
  const weights = randomWeights('u4_g32', 4, 64, 1);
  const failing = (call: () => unknown): unknown => {
    try {
      call();
    } catch (error) {
      return [(error as { code: string }).code, (error as Error).message];
    }
    return 'no error';
  };

  it('shape', () => {
    expect(failing(() => dequantize(weights, { out: Tensor.zeros('f32', [3, 64]) }))).toEqual([
      'BL_INVALID_SHAPE',
      'dequantize: output.shape[0] is 3, expected 4 (= input.rows)',
    ]);
    expect(failing(() => dequantize(weights, { out: Tensor.zeros('f32', [4, 65]) }))).toEqual([
      'BL_INVALID_SHAPE',
      'dequantize: output.shape[1] is 65, expected 64 (= input.cols)',
    ]);
    expect(failing(() => dequantize(weights, { out: Tensor.zeros('f32', [256]) }))).toEqual([
      'BL_INVALID_SHAPE',
      'dequantize: output.rank is 1, expected 2',
    ]);
  });

  it('dtype', () => {
    const out = Tensor.zeros('i32', [4, 64]) as unknown as Tensor<'f32'>;
    expect(failing(() => dequantize(weights, { out }))).toEqual([
      'BL_INVALID_DTYPE',
      'dequantize: output.dtype is i32, expected f32 or f16 or bf16',
    ]);
  });

  it('overlap', () => {
    const memory = new Uint8Array(4096);
    const input = new QuantizedTensor('u4_g32', memory, [4, 64]);
    const out = new Tensor('f32', memory, [4, 64]);
    expect(failing(() => dequantize(input, { out }))).toEqual([
      'BL_INVALID_ARGUMENT',
      'dequantize: output overlaps input, expected separate memory',
    ]);
  });

  it('an output that overlaps itself', () => {
    const out = new Tensor('f32', new Float32Array(64), [4, 64], { strides: [0, 1] });
    expect(failing(() => dequantize(weights, { out }))).toEqual([
      'BL_INVALID_SHAPE',
      expect.stringContaining('must not overlap itself'),
    ]);
  });

  it('an unknown layout for pack', () => {
    expect(failing(() => pack(weights, { layout: 'tiles' as 'lanes16' }))).toEqual([
      'BL_INVALID_LAYOUT',
      expect.stringContaining('expected canonical, lanes16 or fragments'),
    ]);
  });
});
