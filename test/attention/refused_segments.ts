// Segments that decodeAttention takes, for tests that change something in them.
import { expect } from 'vitest';
import {
  type DecodeAttentionOptions,
  decodeAttention,
  KVPages,
  type KVSegment,
  Tensor,
} from '../../lib/index.js';
import { expectError } from '../reference/op_checks.js';

export const f32 = (...shape: number[]) => Tensor.zeros('f32', shape);
export const i32 = (values: number[], ...shape: number[]) => new Tensor('i32', values, shape);
// 2 sequences, 4 query heads of 2 kv heads, 5 pages of 16 tokens.
export const q = f32(2, 4, 8);
export const pages = new KVPages({
  keyFormat: 'f16',
  pageSize: 16,
  numKvHeads: 2,
  keyDim: 8,
  valueDim: 5,
  numPages: 5,
});
export const good: KVSegment = {
  pages,
  blockTable: i32([0, 1, 2, 3, 4, 0], 2, 3),
  lengths: i32([48, 33], 2),
};
/** The call is refused with that message, and nothing is written. */
export function expectRefused(
  segments: readonly KVSegment[],
  code: string,
  message: string,
  options: DecodeAttentionOptions = {},
  op = 'attention',
): void {
  const out = f32(2, 4, 5);
  out.data.fill(7);
  expectError(() => decodeAttention(q, segments, { out, ...options }), code, `${op}: ${message}`);
  expect(out.data.every((value) => value === 7)).toBe(true);
}
