// What becomes of keys and values that go: sums into rows that stay.
import { nearestKeys } from '../../ops/kv/nearest_keys.js';
import { Tensor } from '../../tensor.js';
import type { LayerContent, LayerView } from './policy.js';
import { cosine } from './scores.js';
import { goingOf } from './selections.js';

/** Keys that go, and of each head the most alike that stays. */
export interface Nearest {
  /** [numKvHeads][going], rising. */
  readonly going: readonly Int32Array[];
  /** Of `kept[head]`, [numKvHeads][going]. */
  readonly target: readonly Int32Array[];
  /** Cosine of the two keys, [numKvHeads][going]. */
  readonly similarity: readonly Float32Array[];
}

/** By head, as columns of a matrix. */
function columns(lists: readonly Int32Array[]): Tensor<'i32'> {
  const heads = lists.length;
  const rows = lists[0]?.length ?? 0;
  const data = new Int32Array(rows * heads);
  for (const [head, list] of lists.entries()) {
    for (let r = 0; r < rows; r++) data[r * heads + head] = list[r] as number;
  }
  return new Tensor('i32', data, [rows, heads]);
}

/** For each of `going[head]` (default: all that go) the nearest of `kept[head]` by cosine of keys. */
export function nearestKept(
  view: LayerView,
  kept: readonly Int32Array[],
  content: LayerContent,
  going: readonly Int32Array[] = kept.map((list) => goingOf(list, view.keys)),
): Nearest {
  const heads = kept.length;
  const found = nearestKeys(content.keys, columns(going), columns(kept));
  const column = <A extends Int32Array | Float32Array>(data: A, head: number, to: A): A => {
    for (let r = 0; r < to.length; r++) to[r] = data[r * heads + head] as number;
    return to;
  };
  return {
    going,
    target: going.map((list, head) =>
      column(found.index.data as Int32Array, head, new Int32Array(list.length)),
    ),
    similarity: going.map((list, head) =>
      column(found.similarity.data as Float32Array, head, new Float32Array(list.length)),
    ),
  };
}

/** Cosine of two rows of a head; 0 where one has no length. */
export function rowCosine(
  { data, shape }: Tensor<'f32'>,
  head: number,
  a: number,
  b: number,
): number {
  const [, heads = 1, dim = 0] = shape;
  const row = (index: number): Float32Array => {
    const at = (index * heads + head) * dim;
    return (data as Float32Array).subarray(at, at + dim);
  };
  return cosine(row(a), row(b));
}

/** Which rows of a head are added to which row that stays, and how much of it is left. */
export interface HeadMerge {
  /** Rows that go, [n]. */
  readonly from: ArrayLike<number>;
  /** Rows that stay, [n]. */
  readonly to: ArrayLike<number>;
  /** Weights of the rows that go, [n]. */
  readonly weights: ArrayLike<number>;
  /** Weight of each row that stays and gets something, by row; 1 where there is none. */
  readonly own: ReadonlyMap<number, number>;
}

/**
 * `row <- own[row] * row + sum of weights[i] * from[i] over to[i] = row`, of keys and of values, in place; from and to are rows
 * of one head.
 */
export function mergeRows({ keys, values }: LayerContent, head: number, merge: HeadMerge): void {
  mergeRowsOf(keys, head, merge);
  mergeRowsOf(values, head, merge);
}

/** The same of one tensor, [rows, heads, dim]. */
export function mergeRowsOf(
  { data: all, shape }: Tensor<'f32'>,
  head: number,
  merge: HeadMerge,
): void {
  const [, heads = 1, dim = 0] = shape;
  const data = all as Float32Array;
  for (const [row, weight] of merge.own) {
    const at = (row * heads + head) * dim;
    for (let c = 0; c < dim; c++) data[at + c] = (data[at + c] as number) * weight;
  }
  for (let i = 0; i < merge.from.length; i++) {
    const from = ((merge.from[i] as number) * heads + head) * dim;
    const to = ((merge.to[i] as number) * heads + head) * dim;
    const weight = merge.weights[i] as number;
    for (let c = 0; c < dim; c++) {
      data[to + c] = (data[to + c] as number) + weight * (data[from + c] as number);
    }
  }
}

/**
 * The same with lengths apart from directions: the weighted sum of the rows' directions, as long as the weighted sum of their lengths. So
 * a mean of rows that point elsewhere does not become short, as it would by {@link mergeRowsOf}.
 */
export function mergeDirections(tensor: Tensor<'f32'>, head: number, merge: HeadMerge): void {
  const [, heads = 1, dim = 0] = tensor.shape;
  const rowOf = (row: number): Float32Array => {
    const at = (row * heads + head) * dim;
    return (tensor.data as Float32Array).subarray(at, at + dim);
  };
  const length = (row: number): number => Math.hypot(...rowOf(row));
  const lengths = new Map<number, number>();
  const own = new Map<number, number>();
  for (const [row, weight] of merge.own) {
    lengths.set(row, weight * length(row));
    own.set(row, weight / (length(row) || 1));
  }
  const weights = Array.from(merge.weights, (weight, i) => {
    const [from, to] = [merge.from[i] as number, merge.to[i] as number];
    lengths.set(to, (lengths.get(to) ?? 0) + weight * length(from));
    return weight / (length(from) || 1);
  });
  mergeRowsOf(tensor, head, { from: merge.from, to: merge.to, weights, own });
  for (const [row, wanted] of lengths) {
    const scale = wanted / (length(row) || 1);
    for (const [c, x] of rowOf(row).entries()) rowOf(row)[c] = x * scale;
  }
}

/**
 * Weights that sum to 1 for each row that stays: its own weight and those that come to it, divided by their sum. A row whose
 * weights are all 0 stays as it is.
 *
 * @param ownWeight of a row that stays
 */
export function normalizedMerge(
  from: readonly number[],
  to: readonly number[],
  weights: readonly number[],
  ownWeight: (row: number) => number,
): HeadMerge {
  const sums = new Map<number, number>();
  for (const [i, row] of to.entries()) {
    sums.set(row, (sums.get(row) ?? ownWeight(row)) + (weights[i] as number));
  }
  const own = new Map<number, number>();
  for (const [row, sum] of sums) own.set(row, sum > 0 ? ownWeight(row) / sum : 1);
  const divided = weights.map((weight, i) => {
    const sum = sums.get(to[i] as number) as number;
    return sum > 0 ? weight / sum : 0;
  });
  return { from, to, weights: divided, own };
}
