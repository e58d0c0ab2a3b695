// Everything that kvAppend, kvGather and KVPages refuse, before anything is written.
import { describe, expect, it } from 'vitest';
import {
  type KVFormat,
  KVPages,
  type KVPagesOptions,
  kvAppend,
  kvAppendAsync,
  kvGather,
  kvPageBytes,
  Tensor,
} from '../../lib/index.js';
import { expectError, onDevice } from '../reference/op_checks.js';
import { i32, memoryOf, range } from './cases.js';

const zeros = (...shape: number[]): Tensor<'f32'> => Tensor.zeros('f32', shape);
const options: KVPagesOptions = {
  keyFormat: 'i8',
  numKvHeads: 2,
  keyDim: 6,
  valueDim: 5,
  numPages: 3,
};
const k = zeros(2, 2, 6);
const v = zeros(2, 2, 5);
const slots = i32([0, 40]);

describe('kvAppend errors', () => {
  it.each<[string, unknown[], string, string]>([
    ['k rank', [zeros(2, 6), v, slots], 'BL_INVALID_SHAPE', 'k.rank is 2, expected 3'],
    [
      'k dim',
      [zeros(2, 2, 7), v, slots],
      'BL_INVALID_SHAPE',
      'k.shape[2] is 7, expected 6 (= keys.dim)',
    ],
    ['v rank', [k, zeros(2, 5), slots], 'BL_INVALID_SHAPE', 'v.rank is 2, expected 3'],
    [
      'v dim',
      [k, zeros(2, 2, 6), slots],
      'BL_INVALID_SHAPE',
      'v.shape[2] is 6, expected 5 (= values.dim)',
    ],
    [
      'v tokens',
      [k, zeros(3, 2, 5), slots],
      'BL_INVALID_SHAPE',
      'v.shape[0] is 3, expected 2 (= k.shape[0])',
    ],
    [
      'v heads',
      [k, zeros(2, 1, 5), slots],
      'BL_INVALID_SHAPE',
      'v.shape[1] is 1, expected 2 (= k.shape[1])',
    ],
    [
      'heads',
      [zeros(2, 3, 6), zeros(2, 3, 5), slots],
      'BL_INVALID_SHAPE',
      'k.shape[1] is 3, expected 2 (= keys.numKvHeads) with slots of rank 1',
    ],
    [
      'heads of their own',
      [zeros(2, 3, 6), zeros(2, 3, 5), i32(range(6), 2, 3)],
      'BL_INVALID_SHAPE',
      'keys.numKvHeads is 2, expected 1 or 3 (= k.shape[1])',
    ],
    [
      'slots',
      [k, v, i32([1])],
      'BL_INVALID_SHAPE',
      'slots.shape[0] is 1, expected 2 (= k.shape[0])',
    ],
    [
      'slots heads',
      [k, v, i32([1, 2], 2, 1)],
      'BL_INVALID_SHAPE',
      'slots.shape[1] is 1, expected 2 (= k.shape[1])',
    ],
    [
      'slots rank',
      [k, v, i32([1], 1, 1, 1)],
      'BL_INVALID_SHAPE',
      'slots.rank is 3, expected 1 to 2',
    ],
    [
      'k dtype',
      [Tensor.zeros('i8', [2, 2, 6]), v, slots],
      'BL_INVALID_DTYPE',
      'k.dtype is i8, expected f32 or f16 or bf16',
    ],
    [
      'slots dtype',
      [k, v, Tensor.zeros('f32', [2])],
      'BL_INVALID_DTYPE',
      'slots.dtype is f32, expected i32',
    ],
    [
      'no v',
      [k, undefined, slots],
      'BL_INVALID_ARGUMENT',
      'v is missing, expected a tensor (the pages have values)',
    ],
    ['k is none', [3, v, slots], 'BL_INVALID_ARGUMENT', 'k is 3, expected a Tensor'],
    [
      'slots are none',
      [k, v, [1, 2]],
      'BL_INVALID_ARGUMENT',
      'slots is an Array, expected a Tensor',
    ],
  ])('%s', (_, args, code, message) => {
    const pages = new KVPages(options);
    const call = () => (kvAppend as (...values: unknown[]) => void)(...args, pages);
    expectError(call, code, `kvAppend: ${message}`);
  });

  it.skipIf(onDevice)('slots outside the pages, with nothing written', () => {
    const pages = new KVPages(options);
    const ones = new Tensor('f32', new Float32Array(24).fill(1), [2, 2, 6]);
    for (const bad of [48, -2, 2 ** 31 - 1, -(2 ** 31)]) {
      expectError(
        () => kvAppend(ones, v, i32([0, bad]), pages),
        'BL_OUT_OF_RANGE',
        `kvAppend: slots[1] is ${bad}, expected -1 to 47 (= numPages * pageSize - 1)`,
      );
      expectError(
        () => kvAppend(ones, v, i32([0, 1, 2, bad], 2, 2), pages),
        'BL_OUT_OF_RANGE',
        `kvAppend: slots[3] is ${bad}, expected -1 to 47 (= numPages * pageSize - 1)`,
      );
      expectError(
        () => kvGather(i32([0, bad]), pages),
        'BL_OUT_OF_RANGE',
        `kvGather: slots[1] is ${bad}, expected -1 to 47 (= numPages * pageSize - 1)`,
      );
    }
    expect(memoryOf(pages).every((byte) => byte === 0)).toBe(true);
  });

  it.skipIf(onDevice)('parts of pages of i4 and i2 keys', () => {
    for (const keyFormat of ['i4', 'i2'] as KVFormat[]) {
      const pages = new KVPages({ ...options, keyFormat, numKvHeads: 1 });
      const call = (list: number[]) => () =>
        kvAppend(zeros(list.length, 1, 6), zeros(list.length, 1, 5), i32(list), pages);
      const why = `: keys of format ${keyFormat} are written by whole pages`;
      expectError(
        call(range(15)),
        'BL_INVALID_ARGUMENT',
        `kvAppend: slots end after 15 tokens of a page, expected all 16${why}`,
      );
      expectError(
        call([...range(16), 17]),
        'BL_INVALID_ARGUMENT',
        `kvAppend: slots[16] is 17, expected 16${why}`,
      );
      expectError(
        call([...range(8), -1, ...range(8, 8)]),
        'BL_INVALID_ARGUMENT',
        `kvAppend: slots[8] is -1, expected 8${why}`,
      );
      expectError(
        () =>
          kvAppend(
            zeros(16, 2, 6),
            zeros(16, 2, 5),
            i32(
              range(16).flatMap((t) => [t, t === 3 ? 2 : 16 + t]),
              16,
              2,
            ),
            pages,
          ),
        'BL_INVALID_ARGUMENT',
        `kvAppend: slots[7] is 2, expected 19${why}`,
      );
      expect(memoryOf(pages).every((byte) => byte === 0)).toBe(true);
    }
  });

  it('keyMean, v without values, overlaps', () => {
    const pages = new KVPages(options);
    expectError(
      () => kvAppend(k, v, slots, pages, { keyMean: zeros(2, 5) }),
      'BL_INVALID_SHAPE',
      'kvAppend: keyMean.shape[1] is 5, expected 6 (= keys.dim)',
    );
    expectError(
      () => kvAppend(k, v, slots, pages, { keyMean: zeros(1, 6) }),
      'BL_INVALID_SHAPE',
      'kvAppend: keyMean.shape[0] is 1, expected 2 (= k.shape[1])',
    );
    expectError(
      () =>
        kvAppend(k, v, slots, pages, {
          keyMean: new Tensor('f32', zeros(24).bytes, [2, 6], { strides: [12, 2] }),
        }),
      'BL_INVALID_SHAPE',
      'kvAppend: keyMean.strides[1] is 2, expected 1',
    );
    const alone = new KVPages({ ...options, valueDim: 0 });
    expectError(
      () => kvAppend(k, v, slots, alone),
      'BL_INVALID_ARGUMENT',
      'kvAppend: v is given, expected none (the pages have no values)',
    );
    const inside = new Tensor('f32', pages.keys.bytes.subarray(64), [2, 2, 6]);
    expectError(
      () => kvAppend(inside, v, slots, pages),
      'BL_INVALID_ARGUMENT',
      'kvAppend: keys overlaps k, expected separate memory',
    );
    expectError(
      () => kvGather(slots, pages, { k: inside }),
      'BL_INVALID_ARGUMENT',
      'kvGather: k overlaps keys, expected separate memory',
    );
    const both = zeros(2, 2, 6);
    expectError(
      () => kvGather(slots, pages, { k: both, v: new Tensor('f32', both.bytes, [2, 2, 5]) }),
      'BL_INVALID_ARGUMENT',
      'kvGather: k overlaps v, expected separate memory',
    );
    expectError(
      () => kvGather(slots, pages, { k: zeros(2, 2, 5) }),
      'BL_INVALID_SHAPE',
      'kvGather: k.shape[2] is 5, expected 6 (= keys.dim)',
    );
    expectError(
      () =>
        kvGather(slots, pages, {
          k: new Tensor('f32', new Float32Array(1), [2, 2, 6], { strides: [0, 0, 0] }),
        }),
      'BL_INVALID_SHAPE',
      'kvGather: k.strides[0] is 0, expected at least 1: an output must not overlap itself',
    );
  });

  it('options, pages, disposed pages, an async call', async () => {
    const pages = new KVPages(options);
    expect(() => kvAppend(k, v, slots, pages, { mean: 1 } as never)).toThrow(
      'kvAppend: option "mean" is not known',
    );
    expect(() => kvGather(slots, {} as never)).toThrow(
      'kvGather: pages is an Object, expected KVPages',
    );
    expect(() => kvAppend(k, v, slots, undefined as never)).toThrow(
      'kvAppend: pages is undefined, expected KVPages',
    );
    await expect(kvAppendAsync(k, v, i32([0, 99]), pages)).rejects.toMatchObject({
      code: 'BL_OUT_OF_RANGE',
    });
    pages.dispose();
    expect(pages.disposed).toBe(true);
    expect(() => kvAppend(k, v, slots, pages)).toThrow('Tensor: used after dispose()');
  });
});

describe('KVPages', () => {
  it('knows its sizes, and takes memory', () => {
    const pages = new KVPages(options);
    expect(pages).toMatchObject({ pageSize: 16, valueFormat: 'i8', numSlots: 48 });
    const head = kvPageBytes('i8', 'keys', 16, 6) + kvPageBytes('i8', 'values', 16, 5);
    expect([pages.pageBytes, pages.bytes]).toEqual([2 * head, 6 * head]);
    expect(pages.keys.shape).toEqual([3, 2, kvPageBytes('i8', 'keys', 16, 6)]);
    const again = new KVPages({
      ...options,
      keys: pages.keys,
      values: pages.values as Tensor<'u8'>,
    });
    kvAppend(new Tensor('f32', new Float32Array(24).fill(1), [2, 2, 6]), v, slots, again);
    expect(kvGather(i32([40]), pages).k.toArray()).toEqual(new Array(12).fill(1));
    const single = new KVPages({ ...options, valueDim: 0 });
    expect(single.values).toBeUndefined();
    single[Symbol.dispose]();
    expect(single.disposed).toBe(true);
  });

  it.each<[string, object, string, string]>([
    [
      'keyFormat',
      { keyFormat: 'i3' },
      'BL_INVALID_FORMAT',
      'keyFormat is "i3", expected one of f32,',
    ],
    ['valueFormat', { valueFormat: 'toString' }, 'BL_INVALID_FORMAT', 'valueFormat is "toString"'],
    ['pageSize', { pageSize: 12 }, 'BL_INVALID_SHAPE', 'pageSize is 12, expected a multiple of 8'],
    ['pageSize', { pageSize: 264 }, 'BL_INVALID_SHAPE', 'pageSize is 264, expected 8 to 256'],
    ['numKvHeads', { numKvHeads: 0 }, 'BL_INVALID_SHAPE', 'numKvHeads is 0, expected 1 to 65536'],
    ['keyDim', { keyDim: 1025 }, 'BL_INVALID_SHAPE', 'keyDim is 1025, expected 1 to 1024'],
    ['valueDim', { valueDim: -1 }, 'BL_INVALID_SHAPE', 'valueDim is -1, expected 0 to 1024'],
    ['numPages', { numPages: 1.5 }, 'BL_INVALID_SHAPE', 'numPages is 1.5, expected 0 to 134217727'],
    ['numPages', { numPages: 2 ** 28 }, 'BL_INVALID_SHAPE', 'numPages is 268435456, expected 0 to'],
    [
      'keys',
      { keys: Tensor.zeros('u8', [3, 2, 64]) },
      'BL_INVALID_SHAPE',
      'keys is u8 [3,2,64], expected',
    ],
    ['keys', { keys: 3 }, 'BL_INVALID_ARGUMENT', 'keys is 3, expected a Tensor'],
    [
      'values',
      { valueDim: 0, values: Tensor.zeros('u8', [3]) },
      'BL_INVALID_ARGUMENT',
      'values is given, expected none (valueDim is 0)',
    ],
    ['unknown', { dim: 3 }, 'BL_INVALID_ARGUMENT', 'option "dim" is not known'],
  ])('refuses %s', (_, change, code, message) => {
    try {
      new KVPages({ ...options, ...change } as KVPagesOptions);
      expect.fail('no error');
    } catch (error) {
      expect((error as Error).message).toContain(`KVPages: ${message}`);
      expect(error).toMatchObject({ code });
    }
  });

  it('kvPageBytes refuses what is no page', () => {
    expect(() => kvPageBytes('x' as KVFormat, 'keys', 16, 8)).toThrow('kvPageBytes: format is "x"');
    expect(() => kvPageBytes('i8', 'both' as 'keys', 16, 8)).toThrow('kvPageBytes: of is "both"');
    expect(() => kvPageBytes('i8', 'keys', 20, 8)).toThrow(
      'pageSize is 20, expected a multiple of 8',
    );
    expect(() => kvPageBytes('i8', 'keys', 16, 0)).toThrow('dim is 0, expected 1 to 1024');
  });
});
