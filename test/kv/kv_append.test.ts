// Pages after kvAppend against the tests' own reading of them, in float64; kvGather against the same.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type KVFormat,
  KVPages,
  kvAppend,
  kvGather,
  kvPageBytes,
  Tensor,
} from '../../lib/index.js';
import {
  blockStep,
  isAffine,
  isBlock,
  pageCode,
  pageLayout,
  pageScale,
  pageValue,
  roundTripBound,
} from '../reference/kv_page.js';
import {
  byPage,
  dims,
  f32,
  filledPages,
  formatNames,
  i32,
  memoryOf,
  pageOf,
  pageSizes,
  range,
  rows,
  slotsOfPages,
} from './cases.js';

/** Values that share a scale with channel c of token t: of x [tokens, heads, dim] written to one page each pageSize. */
function groupOf(
  format: KVFormat,
  of: 'keys' | 'values',
  x: Float32Array,
  [heads, dim, pageSize]: [number, number, number],
  [t, h, c]: [number, number, number],
): number[] {
  const at = (token: number, channel: number): number =>
    x[(token * heads + h) * dim + channel] as number;
  const row = (first: number, count: number): number[] =>
    range(Math.min(count, dim - first), first).map((channel) => at(t, channel));
  if (format === 'i8') return row(0, dim);
  if (isBlock(format)) return row(c - (c % 16), 16);
  if (!isAffine(format)) return [at(t, c)];
  if (of === 'values') return row(c - (c % 32), 32);
  return range(pageSize, t - (t % pageSize)).map((token) => at(token, c));
}

/** A number for the elements that share a scale with this one. */
function groupKey(
  format: KVFormat,
  of: 'keys' | 'values',
  pageSize: number,
  [t, h, c]: [number, number, number],
): number {
  const shared = { token: format === 'i8', 16: isBlock(format), 32: isAffine(format) };
  const perChannel = shared[32] && of === 'keys';
  const token = perChannel ? Math.floor(t / pageSize) : t;
  let channel = c;
  if (shared.token) channel = 0;
  else if (shared[16]) channel = c >> 4;
  else if (shared[32] && !perChannel) channel = c >> 5;
  return ((token * 2 + h) * 1024 + channel) * 2 + (of === 'keys' ? 0 : 1);
}

describe('kvPageBytes', () => {
  it('is what the picture of a page says, in multiples of 64', () => {
    for (const format of formatNames) {
      for (const of of ['keys', 'values'] as const) {
        for (const pageSize of pageSizes) {
          for (const dim of dims) {
            const bytes = kvPageBytes(format, of, pageSize, dim);
            expect(bytes).toBe(pageLayout({ format, of, pageSize, dim }).bytes);
            expect(bytes % 64).toBe(0);
          }
        }
      }
    }
  });
});

describe.each(formatNames)('kvAppend %s', (format) => {
  const cases = dims.flatMap((dim, i) =>
    // Every dim with two page sizes, every page size with several dims.
    [pageSizes[i % 6], pageSizes[(i * 5 + 2) % 6]].map((size) => [dim, size] as [number, number]),
  );

  it.each(cases)('%d channels, pages of %d: within the bound of the format', (dim, pageSize) => {
    const heads = pageSize > 32 ? 1 : 2;
    const order = [2, 0]; // page 1 stays untouched
    const tokens = order.length * pageSize;
    const valueDim = dim > 1 ? dim - 1 : 3;
    const k = rows(tokens, heads, dim, dim);
    const v = rows(tokens, heads, valueDim, dim + 1);
    const pages = new KVPages({
      keyFormat: format,
      pageSize,
      numKvHeads: heads,
      keyDim: dim,
      valueDim,
      numPages: 3,
    });
    const slots = i32(slotsOfPages(order, pageSize));
    kvAppend(f32(k, tokens, heads, dim), f32(v, tokens, heads, valueDim), slots, pages);
    const back = kvGather(slots, pages);
    const extents = new Map<number, [number, number]>();
    for (const [of, x, width, got] of [
      ['keys', k, dim, back.k.data],
      ['values', v, valueDim, back.v?.data as Float32Array],
    ] as const) {
      for (const head of range(heads)) {
        for (const t of range(tokens)) {
          const [page, shape] = pageOf(pages, of, order[Math.floor(t / pageSize)] as number, head);
          for (let c = 0; c < width; c++) {
            const i = (t * heads + head) * width + c;
            const value = pageValue(page, shape, t % pageSize, c);
            if (got[i] !== Math.fround(value)) expect(got[i]).toBe(Math.fround(value));
            const key = groupKey(format, of, pageSize, [t, head, c]);
            if (!extents.has(key)) {
              const group = groupOf(format, of, x, [heads, width, pageSize], [t, head, c]);
              extents.set(key, [Math.min(...group), Math.max(...group)]);
            }
            const [low, high] = extents.get(key) as [number, number];
            const error = Math.abs(value - (x[i] as number));
            const bound = roundTripBound(format, x[i] as number, low, high);
            if (!(error <= bound)) expect.fail(`${of} ${t} ${c}: error ${error} above ${bound}`);
            if (!isBlock(format)) continue;
            const step = blockStep(format, Math.max(Math.abs(low), Math.abs(high)));
            const { scale } = pageScale(page, shape, t % pageSize, c);
            if (scale !== step) expect(scale).toBe(step);
          }
        }
      }
    }
    for (const of of ['keys', 'values'] as const) {
      expect(pageOf(pages, of, 1)[0].every((byte) => byte === 0)).toBe(true);
    }
  });

  it('leaves everything else in a page as it is, and writes zeros beyond dim', () => {
    const pageSize = 24;
    const whole = byPage(format);
    for (const dim of [5, 33]) {
      const options = { keyFormat: format, pageSize, numKvHeads: 1, keyDim: dim, numPages: 2 };
      const pages = filledPages(options);
      const before = filledPages(options);
      const list = whole ? range(pageSize) : [19, 3, 17, 8];
      const x = f32(rows(list.length, 1, dim), list.length, 1, dim);
      kvAppend(x, x, i32(list), pages);
      for (const of of ['keys', 'values'] as const) {
        const [page, shape] = pageOf(pages, of, 0);
        const [old] = pageOf(before, of, 0);
        const { n } = pageLayout(shape);
        const channels = of === 'keys' ? Math.ceil(dim / n) * n : Math.ceil(dim / 16) * 16;
        for (const t of range(32)) {
          const written = list.includes(t);
          for (const c of range(channels)) {
            const code = pageCode(page, shape, t, c);
            if (!written) expect(code).toBe(pageCode(old, shape, t, c));
            else if (c >= dim) expect(code).toBe(0);
            if (written || c >= dim || (of === 'keys' && whole)) continue;
            expect(pageScale(page, shape, t, c)).toEqual(pageScale(old, shape, t, c));
          }
        }
        expect(
          Buffer.from(pageOf(pages, of, 1)[0]).equals(Buffer.from(pageOf(before, of, 1)[0])),
        ).toBe(true);
      }
    }
  });

  it('NaN and infinity make what shares their scale NaN, and nothing else', () => {
    const [dim, pageSize] = [40, 16];
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const x = rows(pageSize, 1, dim, 4);
      x[3 * dim + 20] = bad;
      const pages = new KVPages({ keyFormat: format, numKvHeads: 1, keyDim: dim, numPages: 1 });
      const tensor = f32(x, pageSize, 1, dim);
      kvAppend(tensor, tensor, i32(range(pageSize)), pages);
      const { k, v } = kvGather(i32(range(pageSize)), pages);
      for (const [of, y] of [
        ['keys', k.data],
        ['values', v?.data as Float32Array],
      ] as const) {
        for (const t of range(pageSize)) {
          for (const c of range(dim)) {
            const group = groupOf(format, of, x, [1, dim, pageSize], [t, 0, c]);
            const got = y[t * dim + c] as number;
            const keeps = ['f32', 'f16', 'bf16'].includes(format);
            if (group.every(Number.isFinite)) expect(Number.isFinite(got)).toBe(true);
            else expect(got).toBe(keeps ? bad : Number.NaN);
          }
        }
      }
    }
  });

  it('zeros, subnormal and enormous values stay finite', () => {
    const dim = 48;
    for (const value of [0, -0, 2 ** -149, -1e-40, 1e-38, 70000, -1e5, 3.4e38, -3.4e38]) {
      const x = new Float32Array(8 * dim).fill(value);
      x[5] = 0;
      const pages = new KVPages({
        keyFormat: format,
        pageSize: 8,
        numKvHeads: 1,
        keyDim: dim,
        numPages: 1,
      });
      const tensor = f32(x, 8, 1, dim);
      kvAppend(tensor, tensor, i32(range(8)), pages);
      const { k, v } = kvGather(i32(range(8)), pages);
      const overflows = format === 'f16' && Math.abs(value) > 65520;
      const bf16 = format === 'bf16' && Math.abs(value) > 3.39e38;
      for (const y of [...k.data, ...(v?.data as Float32Array)]) {
        if (!overflows && !bf16) expect(Number.isFinite(y)).toBe(true);
        if (Math.abs(value) < 1e-30) expect(Math.abs(y)).toBeLessThanOrEqual(2 ** -119);
        if (!isAffine(format) && y !== 0) expect(Math.sign(y)).toBe(Math.sign(value));
      }
    }
  });
});

describe('kvAppend', () => {
  it('any slots, also -1: a model of it', () => {
    const free = formatNames.filter((format) => !byPage(format));
    fc.assert(
      fc.property(
        fc.constantFrom(...free),
        fc.constantFrom(...formatNames),
        fc.constantFrom(8, 24, 16),
        fc.integer({ min: 1, max: 40 }),
        fc.array(fc.array(fc.integer({ min: -1, max: 47 }), { maxLength: 9 }), { maxLength: 4 }),
        (keyFormat, valueFormat, pageSize, dim, calls) => {
          const options = { keyFormat, valueFormat, pageSize, numKvHeads: 1, keyDim: dim };
          const pages = new KVPages({ ...options, numPages: 48 / pageSize });
          const model = new Map<number, [number[], number[]]>();
          for (const [i, call] of calls.entries()) {
            const list = [...new Set(call)];
            const x = f32(rows(list.length, 1, dim, i + 1), list.length, 1, dim);
            kvAppend(x, x, i32(list), pages);
            // Each token alone in pages of its own.
            for (const [t, slot] of list.entries()) {
              const alone = new KVPages({ ...options, numPages: 1 });
              kvAppend(x.slice(t, t + 1), x.slice(t, t + 1), i32([5]), alone);
              const { k, v } = kvGather(i32([5]), alone);
              model.set(slot, [k.toArray(), (v as Tensor).toArray()]);
            }
          }
          model.set(-1, [new Array(dim).fill(0), new Array(dim).fill(0)]);
          const slots = [...model.keys()];
          const { k, v } = kvGather(i32(slots), pages);
          expect(k.toArray()).toEqual(slots.flatMap((slot) => model.get(slot)?.[0]));
          expect(v?.toArray()).toEqual(slots.flatMap((slot) => model.get(slot)?.[1]));
        },
      ),
      { numRuns: 60 },
    );
  });

  it('heads with slots of their own, in pages of all heads and of one', () => {
    const [tokens, heads, dim] = [4, 3, 20];
    const k = f32(rows(tokens, heads, dim, 1), tokens, heads, dim);
    const v = f32(rows(tokens, heads, dim, 2), tokens, heads, dim);
    const common = { keyFormat: 'i8', valueFormat: 'i4', pageSize: 8, keyDim: dim } as const;
    // Head 0 goes forward, head 1 backward, head 2 leaves tokens out; they share pages of one head.
    const list = [0, 23, -1, 1, 22, 9, 2, 21, -1, 3, 20, 12];
    for (const numKvHeads of [heads, 1]) {
      const pages = new KVPages({ ...common, numKvHeads, numPages: 3 });
      kvAppend(k, v, i32(list, tokens, heads), pages);
      const back = kvGather(i32(list, tokens, heads), pages);
      for (const head of range(heads)) {
        const alone = new KVPages({ ...common, numKvHeads: 1, numPages: 3 });
        const view = (x: Tensor<'f32'>): Tensor<'f32'> =>
          new Tensor('f32', x.data.subarray(head * dim), [tokens, 1, dim], {
            strides: [heads * dim, dim, 1],
          });
        const own = i32(range(tokens).map((t) => list[t * heads + head] as number));
        kvAppend(view(k), view(v), own, alone);
        const expected = kvGather(own, alone);
        expect(view(back.k).toArray()).toEqual(expected.k.toArray());
        expect(view(back.v as Tensor<'f32'>).toArray()).toEqual(expected.v?.toArray());
      }
    }
  });

  it('whole pages of i4 and i2 keys between tokens that are left out', () => {
    const [pageSize, dim] = [16, 9];
    const list = [-1, ...range(16, 32), -1, -1, ...range(16), -1];
    const x = f32(rows(list.length, 1, dim), list.length, 1, dim);
    for (const keyFormat of ['i4', 'i2'] as const) {
      const pages = new KVPages({ keyFormat, pageSize, numKvHeads: 1, keyDim: dim, numPages: 3 });
      kvAppend(x, x, i32(list), pages);
      const other = new KVPages({ keyFormat, pageSize, numKvHeads: 1, keyDim: dim, numPages: 3 });
      kvAppend(x.slice(1, 17), x.slice(1, 17), i32(range(16, 32)), other);
      kvAppend(x.slice(19, 35), x.slice(19, 35), i32(range(16)), other);
      expect(memoryOf(pages).equals(memoryOf(other))).toBe(true);
    }
  });

  it('takes a mean off the keys, and adds it again', () => {
    const [tokens, heads, dim] = [16, 2, 24];
    const x = rows(tokens, heads, dim);
    const mean = rows(1, heads, dim, 9);
    const less = x.map((value, i) => value - (mean[i % (heads * dim)] as number));
    for (const keyFormat of ['i8', 'i4', 'f32'] as const) {
      const options = { keyFormat, numKvHeads: heads, keyDim: dim, numPages: 1 };
      const [a, b] = [new KVPages(options), new KVPages(options)];
      const slots = i32(range(tokens));
      const keyMean = f32(mean, heads, dim);
      const v = f32(x, tokens, heads, dim);
      kvAppend(v, v, slots, a, { keyMean });
      kvAppend(f32(less, tokens, heads, dim), v, slots, b);
      expect(memoryOf(a).equals(memoryOf(b))).toBe(true);
      const plain = kvGather(slots, b).k.data;
      const added = kvGather(i32([...range(tokens), -1]), a, { keyMean }).k.data;
      expect(added.subarray(0, x.length)).toEqual(
        plain.map((value, i) => value + (mean[i % (heads * dim)] as number)),
      );
      expect([...added.subarray(x.length)].every((value) => value === 0)).toBe(true);
    }
  });

  it('pages without values, without tokens, without pages', () => {
    const options = { keyFormat: 'bf16', numKvHeads: 1, keyDim: 576, valueDim: 0 } as const;
    const pages = new KVPages({ ...options, numPages: 1 });
    kvAppend(f32(rows(2, 1, 576), 2, 1, 576), undefined, i32([4, 2]), pages);
    const back = kvGather(i32([4]), pages);
    expect(back.v).toBeUndefined();
    expect(back.k.data[575]).toBeCloseTo(rows(2, 1, 576)[575] as number, 1);
    kvAppend(Tensor.zeros('f32', [0, 1, 576]), undefined, i32([]), pages);
    const none = new KVPages({ ...options, numPages: 0 });
    kvAppend(Tensor.zeros('f32', [1, 1, 576]), undefined, i32([-1]), none);
    expect(kvGather(i32([-1]), none).k.toArray()).toEqual(new Array(576).fill(0));
  });
});
