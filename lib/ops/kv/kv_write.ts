import { checkObject, checkOptions } from '../../arguments.js';
import {
  type AsyncOptions,
  type Call,
  checkedTensorValues,
  type RunOptions,
  run,
  runAsync,
  runValue,
} from '../../run.js';
import type { FloatDType, Tensor } from '../../tensor.js';

/** Options of {@link kvWrite}. */
export type KVWriteOptions = RunOptions;

/** A cache of keys and values in plain rows, a row per token. */
export interface KVRows {
  /** Shape `[capacity, numKvHeads, keyDim]`, f32, f16 or bf16; any strides. */
  keys: Tensor<FloatDType>;
  /** Shape `[capacity, numKvHeads, valueDim]`. */
  values: Tensor<FloatDType>;
}

const known = new Set(['isa', 'threads', 'stream', 'signal']);

/**
 * Writes tokens into a cache of plain rows: `keys[slots[t]] = k[t]`, `values[slots[t]] = v[t]`, rounded to nearest even. What
 * else is there stays as it is. Slots should differ; of tokens for the same slot any may stay.
 *
 * On a device slots are read when the kernel runs, so that a recorded call (`Graph`) writes elsewhere each time. Those
 * outside the cache, of which nobody can tell then, are left out.
 *
 * @param k [tokens, numKvHeads, keyDim], f32, f16 or bf16; any strides
 * @param v [tokens, numKvHeads, valueDim], the same
 * @param slots [tokens]; -1: the token is left out
 * @param cache is written; apart from all else
 * @returns `cache`
 * @throws `BL_OUT_OF_RANGE` for a slot outside the cache; `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT`
 *   (overlapping memory). All before anything is written.
 *
 * @example
 * ```ts
 * const cache = { keys: Tensor.zeros('f16', [8, 1, 2]), values: Tensor.zeros('f16', [8, 1, 2]) };
 * const k = new Tensor('f32', [1, 2], [1, 1, 2]);
 * kvWrite(k, k, new Tensor('i32', [5], [1]), cache); // row 5 of both
 * ```
 */
export function kvWrite<C extends KVRows>(
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
  slots: Tensor<'i32'>,
  cache: C,
  options: KVWriteOptions = {},
): C {
  return run(prepare(k, v, slots, cache, options));
}

/** {@link kvWrite} on a worker thread. */
export function kvWriteAsync<C extends KVRows>(
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
  slots: Tensor<'i32'>,
  cache: C,
  options: KVWriteOptions & AsyncOptions = {},
): Promise<C> {
  return runAsync(() => prepare(k, v, slots, cache, options), options);
}

function prepare<C extends KVRows>(
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
  slots: Tensor<'i32'>,
  cache: C,
  options: KVWriteOptions,
): Call<C> {
  checkOptions('kvWrite', options, known);
  checkObject('kvWrite', 'cache', cache);
  return {
    op: 'kvWrite',
    values: [
      ...checkedTensorValues('kvWrite', 'k', k),
      ...checkedTensorValues('kvWrite', 'v', v),
      ...checkedTensorValues('kvWrite', 'slots', slots),
      ...checkedTensorValues('kvWrite', 'keys', cache.keys),
      ...checkedTensorValues('kvWrite', 'values', cache.values),
      runValue(options),
    ],
    result: cache,
  };
}
