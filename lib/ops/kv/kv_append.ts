import { checkOptions } from '../../arguments.js';
import {
  type AsyncOptions,
  type Call,
  checkedTensorValues,
  optionalTensorValues,
  type RunOptions,
  run,
  runAsync,
  runValue,
} from '../../run.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import { type KVPages, pagesValues } from './kv_pages.js';

export interface KVAppendOptions extends RunOptions {
  /**
   * Mean of the keys over tokens, [numKvHeads, keyDim], taken off them before they are quantized (SageAttention, Zhang et
   * al. 2024): softmax does not see it, and what is left has a smaller range.
   */
  keyMean?: Tensor<'f32'>;
}

const known = new Set(['keyMean', 'isa', 'threads', 'stream', 'signal']);

/**
 * Writes tokens into pages, quantizing them on the way: token `t` into slot `slots[t]`, token `s % pageSize` of page
 * `s / pageSize`. What else is in the pages stays as it is. Slots should differ; of tokens for the same slot any may stay.
 *
 * Keys of `i4` and `i2` have scales per channel of a page, so that they come as whole pages: `pageSize` tokens in a row
 * whose slots are those of one page, in order. Their values come one by one.
 *
 * A NaN or infinity makes what shares its scale NaN.
 *
 * @param k [tokens, numKvHeads, keyDim], f32, f16 or bf16; any strides
 * @param v [tokens, numKvHeads, valueDim], the same; undefined where the pages have no values
 * @param slots [tokens], or [tokens, numKvHeads] where heads have tables of their own; -1: the token is left out
 * @returns `pages`
 * @throws `BL_OUT_OF_RANGE` for a slot outside the pages; `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT`
 *   (part of a page of `i4` or `i2` keys, overlapping memory). All before anything is written.
 *
 * @example
 * ```ts
 * const pages = new KVPages({ keyFormat: 'i8', numKvHeads: 1, keyDim: 2, numPages: 4 });
 * const k = new Tensor('f32', [1, 2], [1, 1, 2]);
 * kvAppend(k, k, new Tensor('i32', [17], [1]), pages); // the second token of page 1
 * ```
 */
export function kvAppend(
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType> | undefined,
  slots: Tensor<'i32'>,
  pages: KVPages,
  options: KVAppendOptions = {},
): KVPages {
  return run(prepare(k, v, slots, pages, options));
}

/** {@link kvAppend} on a worker thread. */
export function kvAppendAsync(
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType> | undefined,
  slots: Tensor<'i32'>,
  pages: KVPages,
  options: KVAppendOptions & AsyncOptions = {},
): Promise<KVPages> {
  return runAsync(() => prepare(k, v, slots, pages, options), options);
}

function prepare(
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType> | undefined,
  slots: Tensor<'i32'>,
  pages: KVPages,
  options: KVAppendOptions,
): Call<KVPages> {
  checkOptions('kvAppend', options, known);
  return {
    op: 'kvAppend',
    values: [
      ...checkedTensorValues('kvAppend', 'k', k),
      ...optionalTensorValues('kvAppend', 'v', v),
      ...checkedTensorValues('kvAppend', 'slots', slots),
      ...pagesValues('kvAppend', pages),
      ...optionalTensorValues('kvAppend', 'keyMean', options.keyMean),
      runValue(options),
    ],
    result: pages,
  };
}
