/** What tests of matmul's options share. */

import { expect } from 'vitest';
import type { FloatDType, QuantizedTensor, Tensor } from '../../lib/index.js';
import { codebookOf } from '../quantize/cases.js';
import { decodeReferenceRow, referenceRowBytes } from '../reference/formats.js';
import { epsilonOf, smallestOf } from '../reference/views.js';

/** Decoded weights, by the tests' own decoder; b has layout canonical. */
export function decoded(b: QuantizedTensor): Float64Array {
  const values = new Float64Array(b.rows * b.cols);
  const bytes = referenceRowBytes(b.format, b.cols);
  for (let row = 0; row < b.rows; row++) {
    const part = b.bytes.subarray(row * bytes, (row + 1) * bytes);
    values.set(
      decodeReferenceRow(b.format, part, b.cols, codebookOf(b.format), b.tensorScale),
      row * b.cols,
    );
  }
  return values;
}

/** Expects every element of c within its bound, and c's own rounding. */
export function expectOutputs(
  c: Tensor<FloatDType>,
  { values, bounds }: { values: Float64Array; bounds: Float64Array },
  what = '',
): void {
  const actual = c.toArray();
  expect(actual.length).toBe(values.length);
  for (let i = 0; i < values.length; i++) {
    const want = values[i] as number;
    const tolerance =
      (bounds[i] as number) + Math.abs(want) * epsilonOf[c.dtype] * 0.51 + smallestOf[c.dtype];
    if (!(Math.abs((actual[i] as number) - want) <= tolerance)) {
      expect.fail(`${what}: c[${i}] is ${actual[i]}, expected ${want} within ${tolerance}`);
    }
  }
}

export const bytesEqual = (x: Tensor, y: Tensor): boolean => Buffer.compare(x.bytes, y.bytes) === 0;

/** Rows that a matrix of a stack may have: any; on devices, which have 16 side by side, a multiple of that. */
export const matrixRows = (rows: number): number =>
  process.env.BITLOOM_TEST_DEVICE === undefined ? rows : 16 * Math.ceil(rows / 16);
