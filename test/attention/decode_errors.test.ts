// Every error of decodeAttention's tables, lengths and options; nothing is written. Of pages: decode_pages_errors.test.ts.
import { describe, expect, it } from 'vitest';
import {
  decodeAttention,
  decodeAttentionAsync,
  KVPages,
  type KVSegment,
  Tensor,
} from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { runValue, tensorValues } from '../../lib/run.js';
import { expectError, onDevice } from '../reference/op_checks.js';
import { expectRefused, f32, good, i32, pages, q } from './refused_segments.js';

const single = new KVPages({
  keyFormat: 'f16',
  numKvHeads: 1,
  keyDim: 8,
  valueDim: 5,
  numPages: 5,
});

describe('decodeAttention errors', () => {
  it('works with what the others change', () => {
    expect(decodeAttention(q, [good]).shape).toEqual([2, 4, 5]);
    expect(decodeAttention(q, [good, good]).shape).toEqual([2, 4, 5]);
  });

  const rows: [string, string, Partial<KVSegment>][] = [
    [
      'BL_OUT_OF_RANGE',
      'blockTable[0][1] is 5, expected 0 to 4',
      { blockTable: i32([0, 5, 2, 3, 4, 0], 2, 3) },
    ],
    [
      'BL_OUT_OF_RANGE',
      'blockTable[1][2] is -1, expected 0 to 4',
      { blockTable: i32([0, 1, 2, 3, 4, -1], 2, 3) },
    ],
    [
      'BL_OUT_OF_RANGE',
      `blockTable[0][0] is ${2 ** 31 - 1}, expected 0 to 4`,
      { blockTable: i32([2 ** 31 - 1, 1, 2, 3, 4, 0], 2, 3) },
    ],
    [
      'BL_OUT_OF_RANGE',
      `blockTable[0][2] is ${-(2 ** 31)}, expected 0 to 4`,
      { blockTable: i32([0, 1, -(2 ** 31), 3, 4, 0], 2, 3) },
    ],
    [
      'BL_OUT_OF_RANGE',
      'lengths[1] is -1, expected 0 to 48 (= 3 pages of 16 tokens)',
      { lengths: i32([48, -1], 2) },
    ],
    [
      'BL_OUT_OF_RANGE',
      'lengths[0] is 49, expected 0 to 48 (= 3 pages of 16 tokens)',
      { lengths: i32([49, 0], 2) },
    ],
    [
      'BL_OUT_OF_RANGE',
      `lengths[0] is ${2 ** 31 - 1}, expected 0 to 48 (= 3 pages of 16 tokens)`,
      { lengths: i32([2 ** 31 - 1, 0], 2) },
    ],
    ['BL_INVALID_SHAPE', 'blockTable.rank is 1, expected 2 to 3', { blockTable: i32([0, 1], 2) }],
    ['BL_INVALID_SHAPE', 'lengths.rank is 3, expected 1 to 2', { lengths: i32([1, 1], 2, 1, 1) }],
    [
      'BL_INVALID_SHAPE',
      'lengths.shape[0] is 1, expected 2 (= sequences)',
      { lengths: i32([1], 1) },
    ],
    [
      'BL_INVALID_SHAPE',
      'lengths.shape[1] is 3, expected 2 (= kv heads)',
      { lengths: i32([1, 1, 1, 1, 1, 1], 2, 3) },
    ],
    [
      'BL_INVALID_DTYPE',
      'blockTable.dtype is f32, expected i32',
      { blockTable: f32(2, 3) as Tensor as Tensor<'i32'> },
    ],
    [
      'BL_INVALID_DTYPE',
      'lengths.dtype is u8, expected i32',
      { lengths: Tensor.zeros('u8', [2]) as Tensor as Tensor<'i32'> },
    ],
  ];
  it.each(rows)('%s: %s', (code, message, other) => {
    expectRefused([{ ...good, ...other }], code, message);
    // The same of the second segment.
    const recent = message.includes('sequences') ? `recent.${message}` : `recent.${message}`;
    expectRefused([good, { ...good, ...other }], code, recent);
  });

  it('tables of each head', () => {
    const table = (...shape: number[]) => Tensor.zeros('i32', shape);
    const own = { pages: single, blockTable: table(2, 2, 3), lengths: i32([1, 48, 0, 2], 2, 2) };
    expect(decodeAttention(q, [own]).shape).toEqual([2, 4, 5]);
    expectRefused(
      [{ ...own, lengths: i32([1, 2, 49, 3], 2, 2) }],
      'BL_OUT_OF_RANGE',
      'lengths[1] is 49, expected 0 to 48 (= 3 pages of 16 tokens)',
    );
    const bad = table(2, 2, 3);
    bad.data[11] = 9;
    expectRefused(
      [{ ...own, blockTable: bad, lengths: i32([1, 48, 0, 40], 2, 2) }],
      'BL_OUT_OF_RANGE',
      'blockTable[1][2] is 9, expected 0 to 4',
    );
    expectRefused(
      [{ ...own, blockTable: table(2, 3, 3), lengths: i32([1, 1], 2) }],
      'BL_INVALID_SHAPE',
      'q.shape[1] is 4, expected a multiple of 3 (= kv heads of the pages)',
    );
    expectRefused(
      [good, { ...own, blockTable: table(2, 4, 3), lengths: i32([1, 1], 2) }],
      'BL_INVALID_SHAPE',
      'recent.blockTable.shape[1] is 4, expected 2 (= kv heads)',
    );
    expectRefused(
      [good, { ...own, blockTable: table(2, 3), lengths: i32([1, 1], 2) }],
      'BL_INVALID_SHAPE',
      'recent.keys has 1 heads in a page, expected 2',
    );
    const four = new KVPages({
      keyFormat: 'f16',
      numKvHeads: 4,
      keyDim: 8,
      valueDim: 5,
      numPages: 5,
    });
    expectRefused(
      [{ ...own, pages: four }],
      'BL_INVALID_SHAPE',
      'keys has 4 heads in a page, expected 1 or 2',
    );
  });

  it('segments, and options that need k and v', () => {
    const refused = (segments: unknown, message: string, options: object = {}) =>
      expectRefused(
        segments as KVSegment[],
        'BL_INVALID_ARGUMENT',
        message,
        options,
        'decodeAttention',
      );
    refused([], 'segments is not an array of 1 or 2 segments');
    refused([good, good, good], 'segments is not an array of 1 or 2 segments');
    refused(good, 'segments is not an array of 1 or 2 segments');
    refused([undefined], 'segment is undefined, expected an object');
    refused([{ ...good, pages: null }], 'pages is null, expected an object');
    refused([{ ...good, blockTable: [0] }], 'segment.blockTable is an Array, expected a Tensor');
    refused(
      [{ pages, blockTable: good.blockTable }],
      'segment.lengths is undefined, expected a Tensor',
    );
    expect(() => decodeAttention(q, [good], null as never)).toThrow(
      'decodeAttention: options is null, expected an object',
    );
    expect(() => decodeAttention(q, [good], { cuKeys: i32([0, 1], 2) } as object)).toThrow(
      /^decodeAttention: option "cuKeys" is not known/,
    );
    const blockMask = { mask: Tensor.zeros('u8', [1, 1, 1]), queries: 16, keys: 64 };
    expect(() => decodeAttention(q, [good], { blockMask } as object)).toThrow(
      /^decodeAttention: option "blockMask" is not known/,
    );
    expectRefused(
      [good],
      'BL_OUT_OF_RANGE',
      'cuQueries goes from 0 to 1, expected 0 to 2 (= q.shape[0])',
      { cuQueries: i32([0, 0, 1], 3) },
    );
    expectRefused(
      [good],
      'BL_INVALID_SHAPE',
      'cuQueries.shape[0] is 2, expected 3 (= sequences + 1)',
      { cuQueries: i32([0, 2], 2) },
    );
    expectRefused(
      [good],
      'BL_INVALID_SHAPE',
      'mask.shape[2] is 34, expected at most 33 (the keys of the shortest sequence)',
      { mask: Tensor.zeros('u8', [1, 2, 34]) },
    );
    expectRefused(
      [good],
      'BL_INVALID_SHAPE',
      'probabilities.shape[2] is 33, expected 48 (the keys of the longest sequence)',
      { probabilities: f32(4, 2, 33) },
    );
    expectError(
      () => decodeAttention(f32(3, 4, 8), [good]),
      'BL_INVALID_SHAPE',
      'attention: q.shape[0] is 3, expected a multiple of 2 (= sequences) without cuQueries',
    );
    expectError(
      () => decodeAttention(q, [good], { out: f32(2, 4, 6) }),
      'BL_INVALID_SHAPE',
      'attention: output.shape[2] is 6, expected 5 (= channels of a value)',
    );
    const latent = new KVPages({
      keyFormat: 'f16',
      numKvHeads: 2,
      keyDim: 8,
      valueDim: 0,
      numPages: 5,
    });
    expectError(
      () => decodeAttention(q, [{ ...good, pages: latent }], { valueDim: 9 }),
      'BL_INVALID_SHAPE',
      'attention: output.shape[2] is 9 without values, expected at most 8 (= channels of a key)',
    );
  });

  it('no sequences, no heads, no pages', () => {
    const empty = { pages, blockTable: Tensor.zeros('i32', [2, 0]), lengths: i32([0, 0], 2) };
    const none = {
      ...good,
      blockTable: i32([0, 1, 2], 1, 3).slice(0, 0),
      lengths: i32([1], 1).slice(0, 0),
    };
    const noHeads = {
      pages: single,
      blockTable: new Tensor('i32', new Int32Array(6), [2, 0, 3]),
      lengths: i32([1, 1], 2),
    };
    expect(decodeAttention(q, [empty]).toArray()).toEqual(new Array(40).fill(0));
    expect(decodeAttention(f32(0, 4, 8), [none]).shape).toEqual([0, 4, 5]);
    expectRefused(
      [noHeads],
      'BL_INVALID_SHAPE',
      'blockTable.shape[1] is 0, expected at least 1 kv head',
    );
  });

  it('rejects the promise of the async form', async () => {
    const bad = { ...good, blockTable: i32([0, 5, 2, 3, 4, 0], 2, 3) };
    await expect(decodeAttentionAsync(q, [bad])).rejects.toMatchObject({ code: 'BL_OUT_OF_RANGE' });
    await expect(decodeAttentionAsync(q, [])).rejects.toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
    });
  });

  // What lib/ops/attention never passes, but another caller of the addon or of the C ABI may.
  it.skipIf(onDevice)('k and v beside pages', () => {
    const out = f32(2, 4, 5);
    const segment = [
      ...tensorValues(pages.keys),
      1,
      16,
      2,
      8,
      5,
      ...tensorValues(pages.values as Tensor),
      1,
      5,
      ...tensorValues(good.blockTable),
      ...tensorValues(good.lengths),
    ];
    const keys = [...tensorValues(f32(3, 2, 8)), ...tensorValues(f32(3, 2, 5))];
    const call = (given: number, ...values: Parameters<typeof native.attention>) =>
      native.attention(
        ...tensorValues(q),
        ...tensorValues(out),
        0,
        1,
        0,
        0,
        given,
        ...values,
        runValue({}),
      );
    expect(() => call(3, ...keys, ...segment)).toThrow(
      'attention: k and v are given beside pages, expected one of both',
    );
    expect(() => call(5, ...keys, ...segment)).toThrow(
      'attention: recent pages are given without pages',
    );
    expect(() => call(2 + 16, ...segment, ...tensorValues(i32([0, 1, 2], 3)))).toThrow(
      'attention: cuKeys is given with pages, expected lengths',
    );
    const unknown = [...segment];
    unknown[2] = 99;
    expect(() => call(2, ...unknown)).toThrow(
      'attention: keys has format 99, pages of 16 tokens and 8 channels, expected a known format',
    );
  });
});
