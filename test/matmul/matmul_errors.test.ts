import { describe, expect, it } from 'vitest';
import {
  matmul,
  matmulAsync,
  matmulWorkspaceBytes,
  pack,
  packWeights,
  prepareActivations,
  Tensor,
} from '../../lib/index.js';
import { quantized } from '../quantize/cases.js';
import { gaussian } from '../reference/random.js';

// What is wrong with a, b and c themselves; errors of the options stand in the tests of each.
describe('matmul: errors', () => {
  const a = Tensor.zeros('f32', [2, 64]);
  const b = quantized('q4_0', gaussian(3 * 64), [3, 64]);
  const shared = new Float32Array(2 * 64 + 6);
  /** As a program without types calls it. */
  const call = matmul as (...values: unknown[]) => unknown;
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
      'matmul: out.shape[1] is 4, expected 3 (= b.rows)',
      () => matmul(a, b, { out: Tensor.zeros('f32', [2, 4]) }),
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: out.shape[0] is 1, expected 2 (= a.shape[0])',
      () => matmul(a, b, { out: Tensor.zeros('f32', [1, 3]) }),
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: out.rank is 1, expected 2 (= a.rank)',
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
      'matmul: compute is "i5", expected f32, i8, bf16, i1 or e4m3',
      () => matmul(a, b, { compute: 'i5' as never }),
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: out overlaps a, expected separate memory',
      () =>
        matmul(new Tensor('f32', shared, [2, 64]), b, {
          out: new Tensor('f32', shared.subarray(127), [2, 3]),
        }),
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: out.strides[1] is 1, expected at least 2: an output must not overlap itself',
      () =>
        matmul(a, b, { out: new Tensor('f32', new Float32Array(6), [2, 3], { strides: [1, 1] }) }),
    ],
    [
      'BL_INVALID_ARGUMENT',
      'run: threads is 0, expected 1 to 256',
      () => matmul(a, b, { threads: 0 }),
    ],
    ['BL_INVALID_ARGUMENT', 'matmul: a is undefined, expected a Tensor', () => call(undefined, b)],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: a is a Float32Array, expected a Tensor',
      () => call(new Float32Array(64), b),
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: b is undefined, expected a QuantizedTensor',
      () => call(a, undefined),
    ],
    ['BL_INVALID_ARGUMENT', 'matmul: b is a Tensor, expected a QuantizedTensor', () => call(a, a)],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: b is an Array, expected a QuantizedTensor',
      () => call(a, [1, 2]),
    ],
    ['BL_INVALID_ARGUMENT', 'matmul: options is "x", expected an object', () => call(a, b, 'x')],
    ['BL_INVALID_ARGUMENT', 'matmul: options is null, expected an object', () => call(a, b, null)],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: lowRank.up is undefined, expected a Tensor',
      () => call(a, b, { lowRank: { down: Tensor.zeros('f32', [1, 64]) } }),
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: adapters is null, expected an object',
      () => call(a, b, { adapters: null }),
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: outliers.rowOffsets is undefined, expected a Tensor',
      () => call(a, b, { outliers: {} }),
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: scale is 0, expected a finite number other than 0',
      () => call(a, b, { scale: 0 }),
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: scale is "2", expected a finite number other than 0',
      () => call(a, b, { scale: '2' }),
    ],
    [
      'BL_INVALID_ARGUMENT',
      'matmul: cScale is 0, expected a number above 0',
      () => call(a, b, { cScale: 0 }),
    ],
    [
      'BL_INVALID_SHAPE',
      "matmul: adapters.down.shape[2] is 63, expected 64 (= a's columns)",
      () =>
        call(a, b, {
          adapters: {
            down: Tensor.zeros('f32', [1, 1, 63]),
            up: Tensor.zeros('f32', [1, 3, 1]),
            ids: Tensor.zeros('i32', [2]),
          },
        }),
    ],
  ])('refuses with %s: %s', async (code, message, call) => {
    expect(call).toThrow(expect.objectContaining({ code, message }));
  });

  it.each([
    ['bias', new Float32Array(3), 'a Float32Array'],
    ['bias', [1, 2, 3], 'an Array'],
    ['bias', {}, 'an Object'],
    ['bias', 'x', '"x"'],
    ['bias', 3, '3'],
    ['bias', null, 'null'],
    ['rowScale', new Float32Array(3), 'a Float32Array'],
    ['residual', b, 'a QuantizedTensor'],
    ['addend', 'x', '"x"'],
    ['columnScale', [1], 'an Array'],
    ['columnOrder', new Int32Array(64), 'an Int32Array'],
    ['aScales', {}, 'an Object'],
    ['cScales', true, 'true'],
    ['out', new Float32Array(6), 'a Float32Array'],
  ])('refuses %s that is no Tensor', async (name, value, what) => {
    const message = `matmul: ${name} is ${what}, expected a Tensor`;
    const error = expect.objectContaining({ code: 'BL_INVALID_ARGUMENT', message });
    expect(() => call(a, b, { [name]: value })).toThrow(error);
    await expect(matmulAsync(a, b, { [name]: value })).rejects.toEqual(error);
  });

  it('refuses options that are not known', () => {
    expect(() => call(a, b, { epilogue: 'silu' })).toThrow(
      expect.objectContaining({
        code: 'BL_INVALID_ARGUMENT',
        message: expect.stringMatching(
          /^matmul: option "epilogue" is not known, expected one of isa/,
        ),
      }),
    );
    expect(() => call(a, b, { bias: undefined })).not.toThrow();
  });

  it('states the memory that a call takes, whatever N', () => {
    const wide = (n: number) => pack(quantized('q4_0', gaussian(n * 64), [n, 64]));
    const options = { threads: 1 } as const;
    const bytes = matmulWorkspaceBytes(a, wide(512), options);
    expect(bytes).toBeGreaterThan(2 * 64 * 4); // rows of a in f32
    expect(matmulWorkspaceBytes(a, wide(2048), options)).toBe(bytes);
    const refused = { ...options, out: Tensor.zeros('f32', [1, 1]) };
    expect(matmulWorkspaceBytes(a, wide(16), refused)).toBeUndefined();
  });

  it('names values that are no words, whatever they are', () => {
    const prepare = prepareActivations as (...values: unknown[]) => unknown;
    for (const [message, wrong] of [
      ['matmul: algorithm is 5, expected', () => call(a, b, { algorithm: 5n })],
      ['matmul: activation is 5, expected', () => call(a, b, { activation: 5n })],
      ['run: isa is 5, expected', () => call(a, b, { isa: 5n })],
      ['run: threads is Symbol(x), expected', () => call(a, b, { threads: Symbol('x') })],
      ['prepareActivations: algorithm is 5', () => prepare(a, { algorithm: 5n })],
      ['prepareActivations: out is an Array, expected', () => prepare(a, { out: [] })],
      ['prepareActivations: out is null, expected', () => prepare(a, { out: null })],
      ['packWeights: for is 5, expected', () => packWeights(b, { for: 5n as never })],
    ] as const) {
      expect(wrong).toThrow(
        expect.objectContaining({
          code: 'BL_INVALID_ARGUMENT',
          message: expect.stringContaining(message),
        }),
      );
    }
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
