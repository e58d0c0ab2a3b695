import { describe, expect, it } from 'vitest';
import { matmul, matmulAsync, Tensor } from '../../lib/index.js';
import { quantized } from '../quantize/cases.js';
import { gaussian } from '../reference/random.js';

// What is wrong with a, b and c themselves; errors of the options stand in the tests of each.
describe('matmul: errors', () => {
  const a = Tensor.zeros('f32', [2, 64]);
  const b = quantized('q4_0', gaussian(3 * 64), [3, 64]);
  const shared = new Float32Array(2 * 64 + 6);
  it.each([
    [
      'BL_INVALID_SHAPE',
      'matmul: b.cols is 64, expected 32 (= a.shape[1])',
      () => matmul(Tensor.zeros('f32', [2, 32]), b),
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: a.rank is 0, expected 1 to 6',
      () => matmul(Tensor.zeros('f32', []), b),
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: c.shape[1] is 4, expected 3 (= b.rows)',
      () => matmul(a, b, { out: Tensor.zeros('f32', [2, 4]) }),
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: c.shape[0] is 1, expected 2 (= a.shape[0])',
      () => matmul(a, b, { out: Tensor.zeros('f32', [1, 3]) }),
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: c.rank is 1, expected 2 (= a.rank)',
      () => matmul(a, b, { out: Tensor.zeros('f32', [6]) }),
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: bias.shape[0] is 2, expected 3 (= b.rows)',
      () => matmul(a, b, { bias: Tensor.zeros('f32', [2]) }),
    ],
    [
      'BL_INVALID_DTYPE',
      'matmul: a.dtype is i32, expected f32 or f16 or bf16 or i8',
      () => matmul(Tensor.zeros('i32', [2, 64]) as never, b),
    ],
    [
      'BL_INVALID_DTYPE',
      'matmul: bias.dtype is f16, expected f32',
      () => matmul(a, b, { bias: Tensor.zeros('f16', [3]) as never }),
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: compute is "i5", expected f32, i8, bf16 or i1',
      () => matmul(a, b, { compute: 'i5' as never }),
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: c overlaps a, expected separate memory',
      () =>
        matmul(new Tensor('f32', shared, [2, 64]), b, {
          out: new Tensor('f32', shared.subarray(127), [2, 3]),
        }),
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: c.strides[1] is 1, expected at least 2: an output must not overlap itself',
      () =>
        matmul(a, b, { out: new Tensor('f32', new Float32Array(6), [2, 3], { strides: [1, 1] }) }),
    ],
    [
      'BL_INVALID_ARGUMENT',
      'run: threads is 0, expected 1 to 256',
      () => matmul(a, b, { threads: 0 }),
    ],
  ])('refuses with %s: %s', async (code, message, call) => {
    expect(call).toThrow(expect.objectContaining({ code, message }));
  });

  it('writes nothing when it refuses', () => {
    const out = new Tensor('f32', new Float32Array(8).fill(7), [2, 4]);
    expect(() => matmul(a, b, { out })).toThrow();
    expect(out.toArray()).toEqual(new Array(8).fill(7));
  });

  it('refuses detached and disposed buffers', async () => {
    const memory = new Float32Array(128);
    const gone = new Tensor('f32', memory, [2, 64]);
    structuredClone(memory.buffer, { transfer: [memory.buffer] });
    expect(() => matmul(gone, b)).toThrow(expect.objectContaining({ code: 'BL_DETACHED' }));
    await expect(matmulAsync(gone, b)).rejects.toMatchObject({ code: 'BL_DETACHED' });
    const disposed = Tensor.zeros('f32', [2, 64]);
    disposed.dispose();
    expect(() => matmul(disposed, b)).toThrow(expect.objectContaining({ code: 'BL_DETACHED' }));
  });
});
