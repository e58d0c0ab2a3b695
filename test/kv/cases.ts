// What the tests of paged caches share: formats, shapes, pages with contents.
import { type KVFormat, KVPages, type KVPagesOptions, kvFormats, Tensor } from '../../lib/index.js';
import type { PageShape } from '../reference/kv_page.js';
import { gaussian } from '../reference/random.js';

export const formatNames = Object.keys(kvFormats) as KVFormat[];
export const dims = [1, 7, 16, 31, 33, 64, 80, 128, 576];
export const pageSizes = [8, 16, 24, 32, 64, 256];

/** Keys of these come by whole pages. */
export const byPage = (format: KVFormat): boolean => kvFormats[format].scale === 'channel';

/** Rows [tokens, heads, dim] of unit variance with a channel of outliers. */
export function rows(tokens: number, heads: number, dim: number, seed = 1): Float32Array {
  const x = gaussian(tokens * heads * dim, seed);
  for (let i = 0; i < x.length; i += dim) x[i] = (x[i] as number) * 20 + 30;
  return x;
}

export const f32 = (x: Float32Array, ...shape: number[]): Tensor<'f32'> =>
  new Tensor('f32', x, shape);
export const i32 = (list: readonly number[], ...shape: number[]): Tensor<'i32'> =>
  new Tensor('i32', Int32Array.from(list), shape.length === 0 ? [list.length] : shape);

/** Numbers [from, from + count). */
export const range = (count: number, from = 0): number[] =>
  Array.from({ length: count }, (_, i) => from + i);

/** Slots of whole pages in this order. */
export const slotsOfPages = (pages: readonly number[], pageSize: number): number[] =>
  pages.flatMap((page) => range(pageSize, page * pageSize));

/** Pages whose memory holds a pattern, to see what is written. */
export function filledPages(options: KVPagesOptions, byte = 0xa5): KVPages {
  const pages = new KVPages(options);
  pages.keys.bytes.fill(byte);
  pages.values?.bytes.fill(byte);
  return pages;
}

/** The memory of one head in one page, and what it looks like. */
export function pageOf(
  pages: KVPages,
  of: 'keys' | 'values',
  page: number,
  head = 0,
): [Uint8Array, PageShape] {
  const tensor = (of === 'keys' ? pages.keys : pages.values) as Tensor<'u8'>;
  const size = tensor.shape[2] as number;
  const at = (page * pages.numKvHeads + head) * size;
  return [
    tensor.bytes.subarray(at, at + size),
    {
      format: of === 'keys' ? pages.keyFormat : pages.valueFormat,
      of,
      pageSize: pages.pageSize,
      dim: of === 'keys' ? pages.keyDim : pages.valueDim,
    },
  ];
}

/** All bytes of the pages. */
export const memoryOf = (pages: KVPages): Buffer =>
  Buffer.concat([pages.keys.bytes, pages.values?.bytes ?? new Uint8Array(0)]);
