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
import { type FloatDType, Tensor } from '../../tensor.js';
import { type KVPages, pagesValues } from './kv_pages.js';

export interface KVGatherOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** As it was given to `kvAppend`: added to the keys. */
  keyMean?: Tensor<'f32'>;
  /** Where to write keys, [tokens, numKvHeads, keyDim]; default: a new f32 tensor. */
  k?: Tensor<D>;
  /** Where to write values, [tokens, numKvHeads, valueDim]; default: a new f32 tensor. */
  v?: Tensor<D>;
}

const known = new Set(['keyMean', 'k', 'v', 'isa', 'threads', 'stream', 'signal']);

/** Keys and values of tokens. */
export interface KVTokens<D extends FloatDType = 'f32'> {
  /** [tokens, numKvHeads, keyDim] */
  k: Tensor<D>;
  /** [tokens, numKvHeads, valueDim]; undefined where the pages have no values. */
  v: Tensor<D> | undefined;
}

/**
 * Reads tokens back from pages, the inverse of {@link kvAppend}: `k[t]`, `v[t]` are what slot `slots[t]` holds, decoded
 * exactly in f32 and rounded to nearest even for an f16 or bf16 output; zeros where the slot is -1.
 *
 * @param slots [tokens], or [tokens, numKvHeads] where heads have tables of their own
 * @throws `BL_OUT_OF_RANGE` for a slot outside the pages; `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT`
 *   (overlapping memory). All before anything is written.
 *
 * @example
 * ```ts
 * const { k, v } = kvGather(new Tensor('i32', [17], [1]), pages);
 * ```
 */
export function kvGather<D extends FloatDType = 'f32'>(
  slots: Tensor<'i32'>,
  pages: KVPages,
  options: KVGatherOptions<D> = {},
): KVTokens<D> {
  return run(prepare(slots, pages, options));
}

/** {@link kvGather} on a worker thread. */
export function kvGatherAsync<D extends FloatDType = 'f32'>(
  slots: Tensor<'i32'>,
  pages: KVPages,
  options: KVGatherOptions<D> & AsyncOptions = {},
): Promise<KVTokens<D>> {
  return runAsync(() => prepare(slots, pages, options), options);
}

function prepare<D extends FloatDType>(
  slots: Tensor<'i32'>,
  pages: KVPages,
  options: KVGatherOptions<D>,
): Call<KVTokens<D>> {
  checkOptions('kvGather', options, known);
  const slotValues = checkedTensorValues('kvGather', 'slots', slots);
  const pageValues = pagesValues('kvGather', pages);
  const rows = [slots.shape[0] ?? 0, slots.shape[1] ?? pages.numKvHeads];
  const output = (given: Tensor<D> | undefined, dim: number): Tensor<D> =>
    given ?? (Tensor.empty('f32', [...rows, dim], slots.device) as Tensor<FloatDType> as Tensor<D>);
  const k = output(options.k, pages.keyDim);
  const v = pages.values === undefined ? options.v : output(options.v, pages.valueDim);
  return {
    op: 'kvGather',
    values: [
      ...slotValues,
      ...pageValues,
      ...optionalTensorValues('kvGather', 'keyMean', options.keyMean),
      ...checkedTensorValues('kvGather', 'k', k),
      ...optionalTensorValues('kvGather', 'v', v),
      runValue(options),
    ],
    result: { k, v },
  };
}
