// kvAppend and kvGather at every level against level scalar, bit for bit; dtypes, strides, threads, async.
import { describe, expect, it } from 'vitest';
import {
  type FloatDType,
  type KVFormat,
  KVPages,
  kvAppend,
  kvAppendAsync,
  kvGather,
  kvGatherAsync,
  sequence,
  Tensor,
} from '../../lib/index.js';
import { floatTypes, isas, strided } from '../reference/op_checks.js';
import { firstDifference, randomBytes } from '../reference/random.js';
import { specials } from '../reference/views.js';
import {
  byPage,
  dims,
  f32,
  filledPages,
  formatNames,
  i32,
  memoryOf,
  pageSizes,
  range,
  rows,
  slotsOfPages,
} from './cases.js';

/** Rows with a special value here and there. */
function awkwardRows(tokens: number, heads: number, dim: number): Float32Array {
  const x = rows(tokens, heads, dim, dim);
  for (let i = 0; i < x.length; i += 97) x[i] = specials[(i / 97) % specials.length] as number;
  // Ties of every format's rounding.
  for (let i = 40; i < x.length; i += 61) x[i] = Math.round(x[i] as number) + 0.5;
  return x;
}

const same = (a: KVPages, b: KVPages): number => firstDifference(memoryOf(a), memoryOf(b));

describe.each(isas)('level %s', (isa) => {
  it.each(formatNames)('%s: pages as at level scalar', (format) => {
    for (const [i, dim] of dims.entries()) {
      const pageSize = pageSizes[i % pageSizes.length] as number;
      const heads = 2;
      const list = byPage(format)
        ? slotsOfPages([1, 0], pageSize)
        : range(13).map((t) => (t * 7) % (2 * pageSize));
      const x = f32(awkwardRows(list.length, heads, dim), list.length, heads, dim);
      const options = {
        keyFormat: format,
        pageSize,
        numKvHeads: heads,
        keyDim: dim,
        numPages: 2,
      };
      const [expected, pages] = [filledPages(options), filledPages(options)];
      kvAppend(x, x, i32(list), expected, { isa: 'scalar' });
      kvAppend(x, x, i32(list), pages, { isa });
      expect([dim, same(pages, expected)]).toEqual([dim, -1]);
      const a = kvGather(i32(list), expected, { isa: 'scalar' });
      const b = kvGather(i32(list), expected, { isa });
      expect([dim, firstDifference(a.k.bytes, b.k.bytes)]).toEqual([dim, -1]);
      expect(firstDifference((a.v as Tensor).bytes, (b.v as Tensor).bytes)).toBe(-1);
    }
  });

  it.each(formatNames)('%s: any bytes are read as at level scalar', (format) => {
    for (const dim of [33, 128]) {
      const pages = new KVPages({ keyFormat: format, numKvHeads: 1, keyDim: dim, numPages: 2 });
      pages.keys.bytes.set(randomBytes(pages.keys.bytes.length, 3));
      pages.values?.bytes.set(randomBytes(pages.values.bytes.length, 4));
      const slots = i32(range(32));
      const [a, b] = [kvGather(slots, pages, { isa: 'scalar' }), kvGather(slots, pages, { isa })];
      expect(firstDifference(a.k.bytes, b.k.bytes)).toBe(-1);
      expect(firstDifference((a.v as Tensor).bytes, (b.v as Tensor).bytes)).toBe(-1);
    }
  });

  it.each(floatTypes)('%s inputs and outputs, strided', (dtype) => {
    const [tokens, heads, dim, pageSize] = [16, 2, 21, 16];
    for (const keyFormat of ['i8', 'i4', 'bfp4', 'f32'] as KVFormat[]) {
      for (const gaps of [
        [0, 0, 0],
        [3, 2, 0],
        [1, 0, 2],
      ]) {
        const k = strided(dtype, rows(tokens, heads, dim, 1), [tokens, heads, dim], gaps);
        const v = strided(dtype, rows(tokens, heads, dim, 2), [tokens, heads, dim], gaps);
        const slots = strided('i32', range(tokens), [tokens], [gaps[0] as number]);
        const options = { keyFormat, pageSize, numKvHeads: heads, keyDim: dim, numPages: 1 };
        const pages = kvAppend(k, v, slots, new KVPages(options), { isa });
        // The same numbers as plain f32.
        const plain = (x: Tensor<FloatDType>): Tensor<'f32'> =>
          f32(Float32Array.from(x.toArray()), tokens, heads, dim);
        const expected = new KVPages(options);
        kvAppend(plain(k), plain(v), i32(range(tokens)), expected, { isa: 'scalar' });
        expect(same(pages, expected)).toBe(-1);
        const zeros = new Float32Array(tokens * heads * dim);
        const out = {
          k: strided(dtype, zeros, [tokens, heads, dim], gaps),
          v: strided(dtype, zeros, [tokens, heads, dim], gaps),
        };
        expect(kvGather(slots, pages, { isa, ...out })).toEqual(out);
        const back = kvGather(i32(range(tokens)), pages);
        const rounded = (x: Tensor<'f32'>): number[] =>
          new Tensor(dtype, x.toArray(), [x.size]).toArray();
        expect(out.k.toArray()).toEqual(rounded(back.k));
        expect(out.v.toArray()).toEqual(rounded(back.v as Tensor<'f32'>));
      }
    }
  });
});

describe('threads', () => {
  // Enough for several tasks; one head, all heads, and heads with slots of their own.
  const cases: [KVFormat, number, number, boolean][] = [
    ['i8', 8, 8, false],
    ['i4', 1, 1, false],
    ['i2', 3, 3, false],
    ['bfp4', 1, 4, true],
    ['f16', 4, 4, true],
  ];

  it.each(cases)('%s, %d heads in a page, %d heads', async (format, numKvHeads, heads, own) => {
    const [tokens, dim, pageSize] = [512, 128, 32];
    const x = f32(rows(tokens, heads, dim), tokens, heads, dim);
    const shuffled = slotsOfPages(
      range(16).map((i) => (i * 7) % 16),
      pageSize,
    );
    // Neighbouring tokens go to the heads in turn, so that heads share the dwords of values.
    const slots = own
      ? i32(
          shuffled.flatMap((slot) => range(heads).map((h) => slot * heads + h)),
          tokens,
          heads,
        )
      : i32(shuffled);
    const numPages = own ? 16 * heads : 16;
    const options = { keyFormat: format, pageSize, numKvHeads, keyDim: dim, numPages };
    const expected = new KVPages(options);
    kvAppend(x, x, slots, expected, { threads: 1 });
    const back = kvGather(slots, expected, { threads: 1 });
    for (const threads of [2, 3, 7]) {
      const pages = kvAppend(x, x, slots, new KVPages(options), { threads });
      expect(same(pages, expected)).toBe(-1);
      const { k, v } = kvGather(slots, expected, { threads });
      expect(firstDifference(k.bytes, back.k.bytes)).toBe(-1);
      expect(firstDifference((v as Tensor).bytes, (back.v as Tensor).bytes)).toBe(-1);
    }
    const pages = await kvAppendAsync(x, x, slots, new KVPages(options));
    expect(same(pages, expected)).toBe(-1);
    const { k } = await kvGatherAsync(slots, pages);
    expect(firstDifference(k.bytes, back.k.bytes)).toBe(-1);
  });

  it('in a sequence', async () => {
    const x = f32(rows(2, 1, 8), 2, 1, 8);
    const pages = new KVPages({ keyFormat: 'f32', numKvHeads: 1, keyDim: 8, numPages: 1 });
    const { k } = await sequence(() => {
      kvAppend(x, x, i32([3, 9]), pages);
      return kvGather(i32([9, 3]), pages);
    });
    expect(k.toArray()).toEqual([...x.toArray().slice(8), ...x.toArray().slice(0, 8)]);
  });
});
