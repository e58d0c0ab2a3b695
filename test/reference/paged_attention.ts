/** Sequences in pages, for tests of decodeAttention: random tokens in shuffled pages, and what the pages then hold. */
import {
  type FloatDType,
  type KVFormat,
  KVPages,
  type KVSegment,
  kvAppend,
  kvGather,
  Tensor,
} from '../../lib/index.js';
import { product } from './attention_cases.js';
import { gaussian, randomSource } from './random.js';

export const kvFormatNames: KVFormat[] = [
  'f32',
  'f16',
  'bf16',
  'f8e4m3',
  'i8',
  'i4',
  'i2',
  'bfp8',
  'bfp4',
];

export interface PagedPlan {
  keyFormat: KVFormat;
  valueFormat?: KVFormat;
  pageSize: number;
  /** Tokens of each sequence; a list of lists: of each of its kv heads. */
  lengths: readonly number[] | readonly (readonly number[])[];
  kvHeads: number;
  keyDim: number;
  /** 0: pages without values. */
  valueDim: number;
  seed?: number;
}

/** [count] page numbers in random order. */
export function shuffled(count: number, seed: number): number[] {
  const random = randomSource(seed);
  const pages = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [pages[i], pages[j]] = [pages[j] as number, pages[i] as number];
  }
  return pages;
}

export interface Paged {
  segment: KVSegment & { pages: KVPages };
  /** Keys and values of a sequence as the pages hold them, of all its heads or of one: [tokens, heads, dim]. */
  tokens(sequence: number, head?: number): { k: Tensor<'f32'>; v: Tensor<'f32'> };
}

/** A sequence's tokens do not depend on page size, on the order of pages, or on other sequences. */
export function paged(plan: PagedPlan): Paged {
  const {
    keyFormat,
    valueFormat = keyFormat,
    pageSize,
    kvHeads,
    keyDim,
    valueDim,
    seed = 1,
  } = plan;
  const perHead = Array.isArray(plan.lengths[0]);
  // Tables: of each sequence, or of each of its heads.
  const lengths = (perHead ? plan.lengths.flat() : plan.lengths) as readonly number[];
  const counts = lengths.map((length) => Math.ceil(length / pageSize));
  const width = Math.max(1, ...counts) + 1;
  const numPages = counts.reduce((a, b) => a + b, 0) + 3;
  const heads = perHead ? 1 : kvHeads;
  const pages = new KVPages({
    keyFormat,
    valueFormat,
    pageSize,
    numKvHeads: heads,
    keyDim,
    valueDim,
    numPages,
  });
  const order = shuffled(numPages, seed);
  // What is beyond a sequence's pages is not read: it may be anything.
  const table = new Array<number>(lengths.length * width).fill(-7);
  const slotsOf: number[][] = lengths.map((_, i) => {
    const own = order.splice(0, counts[i] as number);
    own.forEach((page, j) => {
      table[i * width + j] = page;
    });
    return own.flatMap((page) => Array.from({ length: pageSize }, (__, t) => page * pageSize + t));
  });
  lengths.forEach((length, i) => {
    const slots = slotsOf[i] as number[];
    if (slots.length === 0) return;
    // Whole pages, as scales per channel need; tokens beyond the length are large, and must not be seen.
    const make = (dim: number, salt: number): Tensor<'f32'> => {
      const values = new Float32Array(slots.length * heads * dim).fill(3);
      values.set(gaussian(length * heads * dim, seed + 10 * i + salt));
      return new Tensor('f32', values, [slots.length, heads, dim]);
    };
    const v = valueDim === 0 ? undefined : make(valueDim, 6);
    kvAppend(make(keyDim, 5), v, new Tensor('i32', slots, [slots.length]), pages);
  });
  const sequences = plan.lengths.length;
  const shape = perHead ? [sequences, kvHeads] : [sequences];
  return {
    segment: {
      pages,
      blockTable: new Tensor('i32', table, [...shape, width]),
      lengths: new Tensor('i32', [...lengths], shape),
    },
    tokens(sequence, head) {
      const i = perHead ? sequence * kvHeads + (head ?? 0) : sequence;
      const slots = (slotsOf[i] as number[]).slice(0, lengths[i]);
      const all = kvGather(new Tensor('i32', slots, [slots.length]), pages);
      return { k: all.k, v: all.v ?? all.k };
    },
  };
}

/** q of sequences with `counts` queries each, side by side; a sequence's own do not depend on others. */
export function queriesOf(
  dtype: FloatDType,
  counts: readonly number[],
  heads: number,
  dim: number,
  seed = 1,
): Tensor<FloatDType> {
  const values = counts.flatMap((count, i) => [
    ...gaussian(count * heads * dim, seed + 1000 * (i + 1)),
  ]);
  const shape = [counts.reduce((a, b) => a + b, 0), heads, dim];
  if (values.length !== product(shape)) throw new Error('queriesOf');
  return new Tensor(dtype, values, shape);
}

/** Channels [0, dim) of each head. */
export function firstChannels(x: Tensor<'f32'>, dim: number): Tensor<'f32'> {
  const [rows, heads, width] = x.shape as [number, number, number];
  const kept = x.toArray().filter((_, i) => i % width < dim);
  return new Tensor('f32', kept, [rows, heads, dim]);
}

/** Heads [begin, end). */
export function headsOf<D extends FloatDType>(x: Tensor<D>, begin: number, end: number): Tensor<D> {
  const [rows, heads, dim] = x.shape as [number, number, number];
  const kept = x.toArray().filter((_, i) => {
    const head = Math.floor(i / dim) % heads;
    return head >= begin && head < end;
  });
  return new Tensor(x.dtype, kept, [rows, end - begin, dim]) as Tensor as Tensor<D>;
}

/** Rows of several tensors, one after the other. */
export function stacked(...parts: readonly Tensor<'f32'>[]): Tensor<'f32'> {
  const [first] = parts as [Tensor<'f32'>];
  const rows = parts.reduce((sum, part) => sum + (part.shape[0] as number), 0);
  return new Tensor(
    'f32',
    parts.flatMap((part) => part.toArray()),
    [rows, ...first.shape.slice(1)],
  );
}
