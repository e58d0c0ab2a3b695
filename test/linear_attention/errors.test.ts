import { describe, expect, it } from 'vitest';
import {
  type LinearAttentionOptions,
  linearAttention,
  linearAttentionAsync,
  Tensor,
} from '../../lib/index.js';
import { expectError } from '../reference/op_checks.js';

const f32 = (...shape: number[]) => Tensor.zeros('f32', shape);
const i32 = (...values: number[]) => new Tensor('i32', values, [values.length]);
const q = f32(5, 4, 8);
const k = f32(5, 2, 8);
const v = f32(5, 2, 6);

describe('linearAttention errors', () => {
  it.each<[string, Tensor<'f32'>, Tensor<'f32'>, Tensor<'f32'>, string]>([
    ['q rank', f32(5, 32), k, v, 'q.rank is 2, expected 3'],
    ['k rank', q, f32(5, 16), v, 'k.rank is 2, expected 3'],
    ['v rank', q, k, f32(5, 12), 'v.rank is 2, expected 3'],
    ['key_dim 0', f32(5, 4, 0), f32(5, 2, 0), v, 'q.shape[2] is 0, expected at least 1'],
    ['no kv heads', q, f32(5, 0, 8), f32(5, 0, 6), 'k.shape[1] is 0, expected at least 1 kv head'],
    ['heads', f32(5, 3, 8), k, v, 'q.shape[1] is 3, expected a multiple of 2 (= k.shape[1])'],
    ['tokens of k', q, f32(4, 2, 8), v, 'k.shape[0] is 4, expected 5 (= q.shape[0])'],
    ['key_dim', q, f32(5, 2, 7), v, 'k.shape[2] is 7, expected 8 (= q.shape[2])'],
    ['tokens of v', q, k, f32(6, 2, 6), 'v.shape[0] is 6, expected 5 (= q.shape[0])'],
    ['kv heads', q, k, f32(5, 1, 6), 'v.shape[1] is 1, expected 2 (= k.shape[1])'],
  ])('%s', (_, badQ, badK, badV, message) => {
    const state = f32(1, 2, 8, 6);
    expectError(
      () => linearAttention(badQ, badK, badV, { out: f32(5, 4, 6), state }),
      'BL_INVALID_SHAPE',
      `linearAttention: ${message}`,
    );
  });

  const shape = 'BL_INVALID_SHAPE';
  const range = 'BL_OUT_OF_RANGE';
  const argument = 'BL_INVALID_ARGUMENT';
  const state = f32(1, 2, 8, 6);
  const three = { state: f32(3, 2, 8, 6) };
  it.each<[string, LinearAttentionOptions, string, string]>([
    ['out', { out: f32(5, 4, 7) }, shape, 'out.shape[2] is 7, expected 6 (= v.shape[2])'],
    [
      'an option',
      { decai: 1 } as never,
      argument,
      'option "decai" is not known, expected one of isa, threads, stream, signal, state, decay, beta, cuTokens, scale, rule, chunk, out',
    ],
    ['state rank', { state: f32(2, 8, 6) }, shape, 'state.rank is 3, expected 4'],
    [
      'state heads',
      { state: f32(1, 4, 8, 6) },
      shape,
      'state.shape[1] is 4, expected 2 (= k.shape[1])',
    ],
    [
      'state rows',
      { state: f32(1, 2, 7, 6) },
      shape,
      'state.shape[2] is 7, expected 8 (= q.shape[2])',
    ],
    [
      'state columns',
      { state: f32(1, 2, 8, 5) },
      shape,
      'state.shape[3] is 5, expected 6 (= v.shape[2])',
    ],
    [
      'state strides',
      {
        state: new Tensor('f32', new Float32Array(200), [1, 2, 8, 6], { strides: [96, 48, 1, 8] }),
      },
      shape,
      'state is not contiguous',
    ],
    ['sequences', three, shape, 'state.shape[0] is 3, expected 1 without cuTokens'],
    ['decay heads', { decay: f32(4) }, shape, 'decay.shape[0] is 4, expected 2 (= k.shape[1])'],
    ['decay tokens', { decay: f32(4, 2) }, shape, 'decay.shape[0] is 4, expected 5 (= q.shape[0])'],
    [
      'decay heads of tokens',
      { decay: f32(5, 4) },
      shape,
      'decay.shape[1] is 4, expected 2 (= k.shape[1])',
    ],
    [
      'decay channels',
      { decay: f32(5, 2, 6) },
      shape,
      'decay.shape[2] is 6, expected 8 (= q.shape[2])',
    ],
    ['decay rank', { decay: f32(1, 5, 2, 8) }, shape, 'decay.rank is 4, expected 1 to 3'],
    [
      'beta without delta',
      { beta: f32(5, 2) },
      argument,
      'beta is given, expected none with the decay rule',
    ],
    [
      'beta tokens',
      { rule: 'delta', beta: f32(4, 2) },
      shape,
      'beta.shape[0] is 4, expected 5 (= q.shape[0])',
    ],
    [
      'beta heads',
      { rule: 'delta', beta: f32(5, 4) },
      shape,
      'beta.shape[1] is 4, expected 2 (= k.shape[1])',
    ],
    [
      'cuTokens length',
      { cuTokens: i32(0, 5), ...three },
      shape,
      'cuTokens.shape[0] is 2, expected 4 (= state.shape[0] + 1)',
    ],
    [
      'cuTokens begin',
      { cuTokens: i32(1, 2, 3, 5), ...three },
      range,
      'cuTokens[0] is 1, expected 0',
    ],
    [
      'cuTokens falls',
      { cuTokens: i32(0, 4, 3, 5), ...three },
      range,
      'cuTokens[2] is 3, expected at least 4 (= cuTokens[1])',
    ],
    [
      'cuTokens end',
      { cuTokens: i32(0, 1, 2, 4), ...three },
      range,
      'cuTokens[3] is 4, expected 5 (= q.shape[0])',
    ],
    ['scale', { scale: Number.NaN }, range, 'scale is nan, expected a finite number'],
    ['chunk below', { chunk: -1 }, range, 'chunk is -1, expected 0 to 512'],
    ['chunk above', { chunk: 513 }, range, 'chunk is 513, expected 0 to 512'],
  ])('%s', (_, options, code, message) => {
    expectError(
      () => linearAttention(q, k, v, { state, ...options }),
      code,
      `linearAttention: ${message}`,
    );
  });

  it('dtypes', () => {
    const wrong = Tensor.zeros('i8', [5, 4, 8]) as Tensor as Tensor<'f32'>;
    const half = (...sizes: number[]) => Tensor.zeros('f16', sizes) as Tensor as Tensor<'f32'>;
    const dtype = 'BL_INVALID_DTYPE';
    expectError(
      () => linearAttention(wrong, k, v),
      dtype,
      'linearAttention: q.dtype is i8, expected f32 or f16 or bf16',
    );
    expectError(
      () => linearAttention(q, k, v, { state: half(1, 2, 8, 6) }),
      dtype,
      'linearAttention: state.dtype is f16, expected f32',
    );
    expectError(
      () => linearAttention(q, k, v, { decay: half(2) }),
      dtype,
      'linearAttention: decay.dtype is f16, expected f32',
    );
    expectError(
      () => linearAttention(q, k, v, { rule: 'delta', beta: half(5, 2) }),
      dtype,
      'linearAttention: beta.dtype is f16, expected f32',
    );
    expectError(
      () => linearAttention(q, k, v, { cuTokens: f32(2) as Tensor as Tensor<'i32'> }),
      dtype,
      'linearAttention: cuTokens.dtype is f32, expected i32',
    );
  });

  it('no overlaps of what is written with anything else', () => {
    const memory = new ArrayBuffer(4096);
    const at = (offset: number, ...shapes: number[]) =>
      new Tensor('f32', new Uint8Array(memory, offset), shapes);
    const message = (what: string, other: string) =>
      `linearAttention: ${what} overlaps ${other}, expected separate memory`;
    const refuse = (
      tensors: [Tensor<'f32'>, Tensor<'f32'>, Tensor<'f32'>],
      options: LinearAttentionOptions,
      text: string,
    ) => expectError(() => linearAttention(...tensors, options), argument, text);
    refuse([at(0, 5, 4, 8), k, v], { out: at(8, 5, 4, 6) }, message('out', 'q'));
    refuse([q, at(0, 5, 2, 8), v], { state: at(4, 1, 2, 8, 6) }, message('state', 'k'));
    refuse([q, k, at(0, 5, 2, 6)], { out: at(0, 5, 4, 6) }, message('out', 'v'));
    refuse([q, k, v], { decay: at(0, 2), state: at(0, 1, 2, 8, 6) }, message('state', 'decay'));
    const delta = { rule: 'delta', beta: at(0, 5, 2) } as const;
    refuse([q, k, v], { ...delta, out: at(0, 5, 4, 6) }, message('out', 'beta'));
    refuse([q, k, v], { out: at(0, 5, 4, 6), state: at(0, 1, 2, 8, 6) }, message('out', 'state'));
    const cuTokens = new Tensor('i32', new Int32Array(memory, 0, 2), [2]);
    cuTokens.data.set([0, 5]);
    refuse([q, k, v], { cuTokens, state: at(0, 1, 2, 8, 6) }, message('state', 'cuTokens'));
  });

  it('arguments that are no tensors or no rule, and rejected promises', async () => {
    expectError(
      () => linearAttention(q, 3 as never, v),
      argument,
      'linearAttention: k is 3, expected a Tensor',
    );
    expectError(
      () => linearAttention(q, k, v, { decay: -0.1 as never }),
      argument,
      'linearAttention: decay is -0.1, expected a Tensor',
    );
    expectError(
      () => linearAttention(q, k, v, { rule: 'gated' as never }),
      argument,
      'linearAttention: rule is "gated", expected decay or delta',
    );
    await expect(linearAttentionAsync(q, k, v, { chunk: -1 })).rejects.toMatchObject({
      code: range,
    });
  });

  it('writes nothing when it refuses', () => {
    const kept = new Tensor('f32', new Float32Array(96).fill(7), [1, 2, 8, 6]);
    const out = new Tensor('f32', new Float32Array(120).fill(7), [5, 4, 6]);
    expectError(
      () => linearAttention(q, k, v, { state: kept, out, cuTokens: i32(0, 4) }),
      range,
      'linearAttention: cuTokens[1] is 4, expected 5 (= q.shape[0])',
    );
    expect([...kept.data, ...out.data].every((value) => value === 7)).toBe(true);
  });
});
