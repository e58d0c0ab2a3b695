// Every error of the option rope of attention and decodeAttention; nothing is written.
import { describe, expect, it } from 'vitest';
import {
  type AttentionRope,
  attention,
  attentionAsync,
  decodeAttention,
  KVPages,
  Tensor,
} from '../../lib/index.js';
import { expectError } from '../reference/op_checks.js';

const f32 = (...shape: number[]) => Tensor.zeros('f32', shape);
const i32 = (values: number[], ...shape: number[]) =>
  new Tensor('i32', values, shape.length === 0 ? [values.length] : shape);
const q = f32(2, 4, 8);
const k = f32(3, 2, 8);
const v = f32(3, 2, 5);
const pages = new KVPages({ keyFormat: 'i8', pageSize: 16, numKvHeads: 2, keyDim: 8, numPages: 2 });
// Two sequences of 3 and 20 keys.
const segment = { pages, blockTable: i32([0, 1, 0, 1], 2, 2), lengths: i32([3, 20]) };

type Loose = { [K in keyof AttentionRope]?: unknown } & { positions?: unknown };
const cases: [Loose, string, string][] = [
  [{ mode: 'both' }, 'BL_INVALID_ARGUMENT', 'rope.mode is "both", expected interleaved or half'],
  [{ rotaryDim: 7 }, 'BL_INVALID_SHAPE', 'rope.rotaryDim is 7, expected an even number'],
  [{ rotaryDim: 10 }, 'BL_OUT_OF_RANGE', 'rope.rotaryDim is 10, expected 0 to 8 (= head_dim)'],
  [{ rotaryDim: -2 }, 'BL_OUT_OF_RANGE', 'rope.rotaryDim is -2, expected 0 to 8 (= head_dim)'],
  [{ theta: 0 }, 'BL_OUT_OF_RANGE', 'rope.theta is 0, expected a finite number above 0'],
  [{ theta: Number.NaN }, 'BL_OUT_OF_RANGE', 'rope.theta is nan, expected a finite number above 0'],
  [
    { scaling: { type: 'ntk' } },
    'BL_INVALID_ARGUMENT',
    'rope.scaling.type is "ntk", expected linear, llama3 or yarn',
  ],
  [
    { scaling: { type: 'linear', factor: 0.5 } },
    'BL_OUT_OF_RANGE',
    'rope.factor is 0.5, expected a finite number of at least 1',
  ],
  [
    { scaling: { type: 'llama3', factor: 2, originalContext: 0 } },
    'BL_OUT_OF_RANGE',
    'rope.originalContext is 0, expected a finite number above 0',
  ],
  [
    { scaling: { type: 'llama3', factor: 2, originalContext: 8, lowFreqFactor: 4 } },
    'BL_OUT_OF_RANGE',
    'rope.highFreqFactor is 4, expected a finite number above 4 (= lowFreqFactor)',
  ],
  [
    { scaling: { type: 'yarn', factor: 2, originalContext: 8 }, theta: 1 },
    'BL_OUT_OF_RANGE',
    'rope.theta is 1, expected a number above 1 with yarn',
  ],
  [
    { freqFactors: f32(3) },
    'BL_INVALID_SHAPE',
    'rope.freqFactors.shape[0] is 3, expected 4 (= rotaryDim / 2)',
  ],
  [
    { freqFactors: f32(4) },
    'BL_OUT_OF_RANGE',
    'rope.freqFactors[0] is 0, expected a finite number above 0',
  ],
  [
    { freqFactors: [1, 1, 1, 1] },
    'BL_INVALID_ARGUMENT',
    'rope.freqFactors is an Array, expected a Tensor',
  ],
  [
    { queryPositions: i32([0, 1, 2]) },
    'BL_INVALID_SHAPE',
    'rope.queryPositions.shape[0] is 3, expected 2 (= q.shape[0])',
  ],
  [
    { queryPositions: i32([0, -1]) },
    'BL_OUT_OF_RANGE',
    'rope.queryPositions[1] is -1, expected at least 0',
  ],
  [
    { queryPositions: f32(2) },
    'BL_INVALID_DTYPE',
    'rope.queryPositions.dtype is f32, expected i32',
  ],
];

describe('errors of rope on the way of attention', () => {
  it.each(cases)('%o', (rope, code, message) => {
    const out = f32(2, 4, 5);
    out.data.fill(7);
    expectError(
      () => attention(q, k, v, { out, rope: rope as AttentionRope }),
      code,
      `attention: ${message}`,
    );
    expect(out.data.every((value) => value === 7)).toBe(true);
  });

  const rows: [unknown, string, string][] = [
    [i32([0, 1]), 'BL_INVALID_SHAPE', 'shape[0] is 2, expected 3 (= k.shape[0])'],
    [i32([0, 1, 2], 1, 3), 'BL_INVALID_SHAPE', 'rank is 2, expected 1'],
  ];
  it.each(rows)('positions of rows: %o', (keyPositions, code, message) => {
    const out = f32(2, 4, 5);
    out.data.fill(7);
    const rope = { keyPositions } as AttentionRope;
    expectError(
      () => attention(q, k, v, { out, rope }),
      code,
      `attention: rope.keyPositions.${message}`,
    );
    expect(out.data.every((value) => value === 7)).toBe(true);
  });

  it('a negative position of a key, but not of one that is of no sequence', () => {
    const rope = { keyPositions: i32([0, 1, -5]) };
    expectError(
      () => attention(q, k, v, { rope }),
      'BL_OUT_OF_RANGE',
      'attention: rope.keyPositions of key 2 of sequence 0 is -5, expected at least 0',
    );
    const all = attention(q, k, v, { rope, cuQueries: i32([0, 2]), cuKeys: i32([0, 2]) });
    expect(all.shape).toEqual([2, 4, 5]);
  });

  const zeros = (...shape: number[]) =>
    i32(new Array(shape.reduce((a, b) => a * b)).fill(0), ...shape);
  const paged: [Tensor<'i32'>, string, string][] = [
    [zeros(20), 'BL_INVALID_SHAPE', '.rank is 1, expected 2 to 3'],
    [zeros(1, 20), 'BL_INVALID_SHAPE', '.shape[0] is 1, expected 2 (= sequences)'],
    [zeros(2, 3, 20), 'BL_INVALID_SHAPE', '.shape[1] is 3, expected 2 (= kv heads)'],
    [
      zeros(2, 19),
      'BL_INVALID_SHAPE',
      '.shape[1] is 19, expected at least 20 (the keys of the longest sequence)',
    ],
    [
      zeros(2, 2, 19),
      'BL_INVALID_SHAPE',
      '.shape[2] is 19, expected at least 20 (the keys of the longest sequence)',
    ],
  ];
  it.each(paged)('positions of pages: %o', (keyPositions, code, message) => {
    const out = f32(2, 4, 8);
    out.data.fill(7);
    expectError(
      () => decodeAttention(q, [segment], { out, rope: { keyPositions } }),
      code,
      `attention: rope.keyPositions${message}`,
    );
    expect(out.data.every((value) => value === 7)).toBe(true);
  });

  it('a negative position of a key in pages', () => {
    const positions = (at: number) =>
      zeros(2, 20)
        .toArray()
        .map((x, i) => (i === at ? -1 : x));
    const rope = (at: number) => ({ keyPositions: i32(positions(at), 2, 20) });
    // Key 3 of the first sequence is beyond its length.
    expect(decodeAttention(q, [segment], { rope: rope(3) }).shape).toEqual([2, 4, 8]);
    expectError(
      () => decodeAttention(q, [segment], { rope: rope(39) }),
      'BL_OUT_OF_RANGE',
      'attention: rope.keyPositions of key 19 of sequence 1 is -1, expected at least 0',
    );
  });

  it('heads of an odd number of channels, and options that are not known', async () => {
    expectError(
      () => attention(f32(1, 1, 7), f32(1, 1, 7), f32(1, 1, 7), { rope: {} }),
      'BL_INVALID_SHAPE',
      'attention: rope.rotaryDim is 7, expected an even number',
    );
    const rope = { positions: i32([0]) } as AttentionRope;
    expect(() => attention(q, k, v, { rope })).toThrow(
      'attention: rope: option "positions" is not known, expected one of mode',
    );
    expect(() => decodeAttention(q, [segment], { rope: 3 as AttentionRope })).toThrow(
      'decodeAttention: rope: options is 3, expected an object',
    );
    await expect(attentionAsync(q, k, v, { rope: { rotaryDim: 3 } })).rejects.toMatchObject({
      code: 'BL_INVALID_SHAPE',
    });
  });
});
