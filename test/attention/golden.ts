// Golden vectors of attention (shared/golden) as calls of attention(): what the files of different makers share.
import {
  type AttentionOptions,
  type FloatDType,
  type RaggedOptions,
  Tensor,
} from '../../lib/index.js';
import { product } from '../reference/attention_cases.js';

export interface GoldenCall {
  /** [rows, heads, dim] each */
  q: Tensor<'f32'>;
  k: Tensor<FloatDType>;
  v: Tensor<FloatDType>;
  options: AttentionOptions & RaggedOptions;
  /** [queries, heads, valueDim] */
  output: number[];
  /** [heads, queries, keys] */
  probabilities?: number[];
  /** Scores before softmax, after mask and soft cap, [heads, queries, keys]. */
  scores?: number[];
}

export interface GoldenCase {
  name: string;
  calls: GoldenCall[];
  /** Allowed difference of outputs. */
  tolerance: number;
}

export interface Golden {
  cases: GoldenCase[];
  /** Cases that are left out, and why. */
  leftOut: Record<string, string>;
}

/** Rows of all batches: [batches, heads, rows, dim], or [batches, rows, heads, dim] when `packed`. */
export interface Block {
  data: readonly number[];
  heads: number;
  rows: number;
  dim: number;
  packed: boolean;
}

/** Batch `batch` of a block as [rows, heads, dim]. */
export function batchOf({ data, heads, rows, dim, packed }: Block, batch: number): number[] {
  const size = heads * rows * dim;
  const values = data.slice(batch * size, (batch + 1) * size);
  if (packed) return values;
  return values.map((_, i) => {
    const row = Math.floor(i / (heads * dim));
    const head = Math.floor(i / dim) % heads;
    return values[(head * rows + row) * dim + (i % dim)] as number;
  });
}

/** One batch, after the rows of `past`, cut to `rows` rows. */
export function rowsOf(block: Block, past: Block | undefined, batch: number, rows?: number) {
  const values = [...(past === undefined ? [] : batchOf(past, batch)), ...batchOf(block, batch)];
  const all = new Tensor('f32', values, [(past?.rows ?? 0) + block.rows, block.heads, block.dim]);
  return rows === undefined ? all : all.slice(0, rows);
}

/**
 * The part of a mask that is of one batch, [heads or 1, queries, keys], from [queries, columns], [batches, 1, queries,
 * columns] or [batches, heads, queries, columns].
 */
export function maskOf(
  values: readonly number[],
  kind: 'u8' | 'f32',
  {
    batches,
    batch,
    heads,
    queries,
    columns,
    keys,
  }: Record<'batches' | 'batch' | 'heads' | 'queries' | 'columns' | 'keys', number>,
): Tensor<'u8' | 'f32'> {
  const one = queries * columns;
  const isShared = values.length === one;
  const ofHeads = values.length === batches * heads * one ? heads : 1;
  const begin = isShared ? 0 : batch * ofHeads * one;
  const own = values.slice(begin, begin + ofHeads * one);
  if (own.length !== ofHeads * one) throw new Error(`mask has ${values.length} elements`);
  const kept = own.filter((_, i) => i % columns < keys);
  return new Tensor<'u8' | 'f32'>(kind, kept, [ofHeads, queries, keys]);
}

/** x [rows, inner] times w [inner, outer], plus bias [outer]. */
export function project(
  x: readonly number[],
  w: readonly number[],
  bias: readonly number[],
  outer: number,
): number[] {
  const inner = w.length / outer;
  return Array.from({ length: (x.length / inner) * outer }, (_, i) => {
    const row = Math.floor(i / outer);
    let sum = bias[i % outer] ?? 0;
    for (let j = 0; j < inner; j++) {
      sum += (x[row * inner + j] as number) * (w[j * outer + (i % outer)] as number);
    }
    return sum;
  });
}

/** Columns [begin, end) of rows of `width`. */
export const columnsOf = (
  values: readonly number[],
  width: number,
  begin: number,
  end: number,
): number[] => values.filter((_, i) => i % width >= begin && i % width < end);

export const f32 = (values: readonly number[], shape: number[]): Tensor<'f32'> => {
  if (values.length !== product(shape)) throw new Error(`${values.length} values for [${shape}]`);
  return new Tensor('f32', values, shape);
};
