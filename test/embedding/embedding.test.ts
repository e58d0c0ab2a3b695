import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  embedding,
  embeddingAsync,
  type Format,
  pack,
  QuantizedTensor,
  Tensor,
} from '../../lib/index.js';
import { codebookOf, colsOf, formatNames, quantized } from '../quantize/cases.js';
import { decodeReferenceRow, referenceRowBytes } from '../reference/formats.js';
import { onDevice } from '../reference/op_checks.js';
import { gaussian } from '../reference/random.js';
import {
  bits,
  canaries,
  expectClose,
  floatTypes,
  isasHere,
  strided,
  thrown,
} from '../reference/views.js';

/** Rows of the table by the tests' own decoder, in float64. */
function referenceRows(table: QuantizedTensor, ids: readonly number[]): number[] {
  const bytes = referenceRowBytes(table.format, table.cols);
  return ids.flatMap((id) => [
    ...decodeReferenceRow(
      table.format,
      table.bytes.subarray(id * bytes, (id + 1) * bytes),
      table.cols,
      codebookOf(table.format),
      table.tensorScale,
    ),
  ]);
}

describe('embedding', () => {
  it('decodes rows of every format and both layouts', () => {
    const ids = new Tensor('i32', [8, 0, 7, 7, 2, 3], [2, 3]);
    let checked = 0;
    for (const format of formatNames) {
      // The longest and most awkward row; the formats' own tests walk the others.
      for (const cols of colsOf(format).slice(-1)) {
        const table = quantized(format, gaussian(9 * cols, cols), [9, cols]);
        const expected = referenceRows(table, ids.toArray());
        const y = embedding(table, ids);
        expect(y.shape).toEqual([2, 3, cols]);
        expectClose(y.toArray(), expected, () => 0);
        expect(bits(embedding(pack(table), ids)).equals(bits(y))).toBe(true);
        checked++;
      }
    }
    expect(checked).toBeGreaterThanOrEqual(formatNames.length);
  });

  it.each(isasHere)('%s: any ids, output dtype, strides', (isa) => {
    const some: Format[] = ['f32', 'q4_0', 'u3z_g32', 'i5_g64', 'q6_k'];
    fc.assert(
      fc.property(
        fc.constantFrom(...some),
        fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
        fc.constantFrom(...floatTypes),
        fc.tuple(fc.integer({ min: 0, max: 2 }), fc.integer({ min: 0, max: 2 })),
        fc.integer({ min: 0, max: 12 }),
        (format, shape, dtype, [idGap, outGap], shift) => {
          const cols = format === 'q6_k' ? 1280 : 96;
          const table = quantized(format, gaussian(13 * cols, 5), [13, cols]);
          const size = shape.reduce((product, n) => product * n, 1);
          const list = Array.from({ length: size }, (_, i) => (i * 5 + shift) % 13);
          const spaced = new Array<number>(size * (idGap + 1)).fill(99);
          for (const [i, id] of list.entries()) spaced[i * (idGap + 1)] = id;
          const strides = shape.map((_, axis) =>
            shape.slice(axis + 1).reduce((step, n) => step * n, idGap + 1),
          );
          const ids = new Tensor('i32', Int32Array.from([...spaced, 99]), shape, { strides });
          const out = strided(dtype, new Float32Array(size * cols), [...shape, cols], outGap);
          expect(embedding(table, ids, { isa, out })).toBe(out);
          expectClose(out.toArray(), referenceRows(table, list), () => 0, dtype);
          expect(canaries(out).every((value) => value === -77)).toBe(true);
        },
      ),
      { numRuns: 25 },
    );
  });

  it('gives the same bits for any number of threads, and async', async () => {
    const table = quantized('u4_g128', gaussian(50 * 512), [50, 512]);
    const ids = new Tensor(
      'i32',
      Int32Array.from({ length: 101 }, (_, i) => (i * 7) % 50),
      [101],
    );
    const one = embedding(table, ids, { threads: 1 });
    for (const threads of [2, 3, 7])
      expect(bits(embedding(table, ids, { threads })).equals(bits(one))).toBe(true);
    expect(bits(await embeddingAsync(table, ids)).equals(bits(one))).toBe(true);
  });

  it('takes a rank of 0, no ids, and a table without columns', () => {
    const table = new QuantizedTensor('f32', Float32Array.of(1, 2, 3, 4), [2, 2]);
    expect(embedding(table, new Tensor('i32', [1], [])).toArray()).toEqual([3, 4]);
    expect(embedding(table, new Tensor('i32', [], [3, 0])).shape).toEqual([3, 0, 2]);
    const empty = new QuantizedTensor('f32', new Float32Array(0), [2, 0]);
    expect(embedding(empty, new Tensor('i32', [1], [1])).shape).toEqual([1, 0]);
  });

  // Values of indices cannot be looked at before a device runs.
  it.skipIf(onDevice)('reports what is wrong before anything is written', async () => {
    const table = new QuantizedTensor('f32', Float32Array.of(1, 2, 3, 4), [2, 2]);
    const ids = (...list: number[]): Tensor<'i32'> => new Tensor('i32', list, [list.length]);
    const out = Tensor.zeros('f32', [3, 2]);
    const wrong: [() => unknown, string, string][] = [
      [
        () => embedding(table, ids(0, 1, 2), { out }),
        'BL_OUT_OF_RANGE',
        'ids[2] is 2, expected 0 to 1 (= table.rows - 1)',
      ],
      [
        () => embedding(table, ids(0, -1, 1), { out }),
        'BL_OUT_OF_RANGE',
        'ids[1] is -1, expected 0 to 1 (= table.rows - 1)',
      ],
      [
        () => embedding(table, ids(0, 1), { out }),
        'BL_INVALID_SHAPE',
        'output.shape[0] is 3, expected 2 (= ids.shape[0])',
      ],
      [
        () => embedding(table, ids(0, 1, 0), { out: Tensor.zeros('f32', [3, 3]) }),
        'BL_INVALID_SHAPE',
        'output.shape[1] is 3, expected 2 (= table.cols)',
      ],
      [
        () => embedding(table, ids(0), { out: Tensor.zeros('f32', [2]) }),
        'BL_INVALID_SHAPE',
        'output.rank is 1, expected 2 (= ids.rank + 1)',
      ],
      [
        () => embedding(table, Tensor.zeros('f32', [1]) as unknown as Tensor<'i32'>),
        'BL_INVALID_DTYPE',
        'ids.dtype is f32, expected i32',
      ],
    ];
    for (const [body, code, message] of wrong) {
      expect(thrown(body)).toMatchObject({ code, message: `embedding: ${message}` });
    }
    const memory = Float32Array.of(1, 2, 3, 4);
    const inside = new Tensor('f32', memory.subarray(2), [1, 2]);
    expect(
      thrown(() => embedding(new QuantizedTensor('f32', memory, [2, 2]), ids(0), { out: inside })),
    ).toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
      message: 'embedding: output overlaps table, expected separate memory',
    });
    expect([...out.toArray(), ...memory]).toEqual([0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    await expect(embeddingAsync(table, ids(5))).rejects.toMatchObject({ code: 'BL_OUT_OF_RANGE' });
  });
});
