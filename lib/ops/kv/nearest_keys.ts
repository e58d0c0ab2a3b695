import { checkOptions } from '../../arguments.js';
import {
  type AsyncOptions,
  type Call,
  checkedTensorValues,
  type RunOptions,
  run,
  runAsync,
  runValue,
} from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';

export interface NearestKeysOptions extends RunOptions {
  /** Where to write, [rows, numKvHeads] each; default: new tensors. */
  out?: NearestKeys;
}

/** What {@link nearestKeys} gives. */
export interface NearestKeys {
  /** Which of the candidates, 0 to candidates - 1; shape [rows, numKvHeads]. */
  index: Tensor<'i32'>;
  /** Its cosine, -1 to 1; shape [rows, numKvHeads]. */
  similarity: Tensor<'f32'>;
}

const known = new Set(['out', 'isa', 'threads', 'stream', 'signal']);

/**
 * For each key that leaves a cache, the most alike of those that stay, head by head (what merging policies ask for):
 * `similarity[r, h] = max over c of cos(keys[rows[r, h], h], keys[candidates[c, h], h])`, `index[r, h]` the first such c.
 * The cosine with a key of length 0 is 0. Keys that are not finite are passed over; where there are no others, index is 0
 * and similarity NaN.
 *
 * @param keys [tokens, numKvHeads, keyDim], f32, f16 or bf16; any strides
 * @param rows [rows, numKvHeads], tokens
 * @param candidates [candidates, numKvHeads], tokens, at least one
 * @throws `BL_OUT_OF_RANGE` for what is no token; `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT`
 *   (overlapping memory). All before anything is written. `BL_OUT_OF_MEMORY`
 *
 * @example
 * ```ts
 * const keys = new Tensor('f32', [1, 0, 0, 1, 2, 1], [3, 1, 2]);
 * const column = (...tokens: number[]) => new Tensor('i32', tokens, [tokens.length, 1]);
 * nearestKeys(keys, column(2), column(0, 1)).index.data; // [0]: (2, 1) points rather along (1, 0)
 * ```
 */
export function nearestKeys(
  keys: Tensor<FloatDType>,
  rows: Tensor<'i32'>,
  candidates: Tensor<'i32'>,
  options: NearestKeysOptions = {},
): NearestKeys {
  return run(prepare(keys, rows, candidates, options));
}

/** {@link nearestKeys} on a worker thread. */
export function nearestKeysAsync(
  keys: Tensor<FloatDType>,
  rows: Tensor<'i32'>,
  candidates: Tensor<'i32'>,
  options: NearestKeysOptions & AsyncOptions = {},
): Promise<NearestKeys> {
  return runAsync(() => prepare(keys, rows, candidates, options), options);
}

function prepare(
  keys: Tensor<FloatDType>,
  rows: Tensor<'i32'>,
  candidates: Tensor<'i32'>,
  options: NearestKeysOptions,
): Call<NearestKeys> {
  const op = 'nearestKeys';
  checkOptions(op, options, known);
  const inputs = [
    ...checkedTensorValues(op, 'keys', keys),
    ...checkedTensorValues(op, 'rows', rows),
    ...checkedTensorValues(op, 'candidates', candidates),
  ];
  const result = options.out ?? {
    index: Tensor.empty('i32', rows.shape, keys.device),
    similarity: Tensor.empty('f32', rows.shape, keys.device),
  };
  return {
    op,
    values: [
      ...inputs,
      ...checkedTensorValues(op, 'index', result.index),
      ...checkedTensorValues(op, 'similarity', result.similarity),
      runValue(options),
    ],
    result,
  };
}
