import { describe, expect, it } from 'vitest';
import { attention, attentionAsync, type FloatDType, Tensor } from '../../lib/index.js';
import { expectError } from '../reference/op_checks.js';

const f32 = (...shape: number[]) => Tensor.zeros('f32', shape);
const q = f32(2, 4, 8);
const k = f32(3, 2, 8);
const v = f32(3, 2, 5);

describe('attention errors', () => {
  it.each<[string, Tensor<FloatDType>, Tensor<FloatDType>, Tensor<FloatDType>, string]>([
    ['q rank', f32(4, 8), k, v, 'q.rank is 2, expected 3'],
    ['k rank', q, f32(3, 16), v, 'k.rank is 2, expected 3'],
    ['v rank', q, k, f32(3, 10), 'v.rank is 2, expected 3'],
    ['head_dim 0', f32(2, 4, 0), f32(3, 2, 0), v, 'q.shape[2] is 0, expected at least 1'],
    ['no kv heads', q, f32(3, 0, 8), f32(3, 0, 5), 'k.shape[1] is 0, expected at least 1 kv head'],
    ['heads', f32(2, 5, 8), k, v, 'q.shape[1] is 5, expected a multiple of 2 (= k.shape[1])'],
    ['head_dim', q, f32(3, 2, 7), v, 'k.shape[2] is 7, expected 8 (= q.shape[2])'],
    ['keys', q, k, f32(4, 2, 5), 'v.shape[0] is 4, expected 3 (= k.shape[0])'],
    ['kv heads', q, k, f32(3, 1, 5), 'v.shape[1] is 1, expected 2 (= k.shape[1])'],
  ])('%s', (_, badQ, badK, badV, message) => {
    const out = f32(2, 4, 5);
    expectError(
      () => attention(badQ, badK, badV, { out }),
      'BL_INVALID_SHAPE',
      `attention: ${message}`,
    );
  });

  it('dtypes', () => {
    expectError(
      () => attention(q, k, Tensor.zeros('f16', [3, 2, 5])),
      'BL_INVALID_DTYPE',
      'attention: v.dtype is f16, expected f32 (= k.dtype)',
    );
    expectError(
      () => attention(Tensor.zeros('i8', [2, 4, 8]) as Tensor as Tensor<FloatDType>, k, v),
      'BL_INVALID_DTYPE',
      'attention: q.dtype is i8, expected f32 or f16 or bf16',
    );
  });

  it('options', () => {
    expectError(
      () => attention(f32(4, 4, 8), k, v, { causal: true }),
      'BL_INVALID_SHAPE',
      'attention: q.shape[0] is 4, expected at most 3 (= k.shape[0]) when causal',
    );
    expectError(
      () => attention(q, k, v, { causal: true, window: -1 }),
      'BL_OUT_OF_RANGE',
      'attention: window is -1, expected at least 0',
    );
    expectError(
      () => attention(q, k, v, { window: 2 }),
      'BL_INVALID_ARGUMENT',
      'attention: window is 2, expected 0 when not causal',
    );
    expectError(
      () => attention(q, k, v, { scale: Number.POSITIVE_INFINITY }),
      'BL_OUT_OF_RANGE',
      'attention: scale is inf, expected a finite number',
    );
    expectError(
      () => attention(q, k, v, { window: 1.5, causal: true }),
      'BL_OUT_OF_RANGE',
      'attention: window is not a 32-bit integer',
    );
  });

  it('output', () => {
    for (const [axis, name, shape] of [
      [0, 'q.shape[0]', [3, 4, 5]],
      [1, 'q.shape[1]', [2, 3, 5]],
      [2, 'v.shape[2]', [2, 4, 6]],
    ] as const) {
      expectError(
        () => attention(q, k, v, { out: Tensor.zeros('f32', shape) }),
        'BL_INVALID_SHAPE',
        `attention: output.shape[${axis}] is ${shape[axis]}, expected ${[2, 4, 5][axis]} (= ${name})`,
      );
    }
    const memory = new Float32Array(64);
    const square = new Tensor('f32', memory.subarray(0, 32), [4, 1, 8]);
    const apart = f32(4, 1, 8);
    for (const [name, inputs] of [
      ['q', [square, apart, apart]],
      ['k', [apart, square, apart]],
      ['v', [apart, apart, square]],
    ] as const) {
      expectError(
        () => attention(...inputs, { out: new Tensor('f32', memory.subarray(31, 63), [4, 1, 8]) }),
        'BL_INVALID_ARGUMENT',
        `attention: output overlaps ${name}, expected separate memory`,
      );
    }
  });

  it('rejects the promise of the async form', async () => {
    await expect(attentionAsync(q, k, f32(1, 2, 5))).rejects.toMatchObject({
      code: 'BL_INVALID_SHAPE',
    });
  });

  it('gives an empty result for zero queries, heads or value_dim', () => {
    expect(attention(f32(0, 4, 8), k, v).shape).toEqual([0, 4, 5]);
    expect(attention(f32(2, 0, 8), k, v).shape).toEqual([2, 0, 5]);
    expect(attention(q, k, f32(3, 2, 0)).shape).toEqual([2, 4, 0]);
  });
});
