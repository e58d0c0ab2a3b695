import { checkObject, checkTensor, checkWeights } from '../../arguments.js';
import type { QuantizedTensor } from '../../quantized_tensor.js';
import {
  type AsyncOptions,
  type Call,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
  weightValues,
} from '../../run.js';
import { type FloatDType, outputTensor, type Tensor } from '../../tensor.js';

export interface EmbeddingOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** Where to write, [..., cols]; default: a new f32 tensor. */
  out?: Tensor<D>;
}

/**
 * Rows of a table by number: `output[..., :] = decode(table[ids[...], :])`. Decoding is exact in f32 and
 * rounded to nearest even for an f16 or bf16 `out`.
 *
 * @param table [vocab, cols] in any format and layout
 * @param ids [...] of rank 5 at most, each in [0, vocab)
 * @returns [..., cols]: `options.out`, or a new f32 tensor
 * @throws `BL_OUT_OF_RANGE` for an id outside the table; `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`,
 *   `BL_INVALID_ARGUMENT` (out overlaps an input). All before anything is written.
 *
 * @example
 * ```ts
 * const table = new QuantizedTensor('f32', Float32Array.of(1, 2, 3, 4, 5, 6), [3, 2]);
 * embedding(table, new Tensor('i32', [2, 0], [2])).toArray(); // [5, 6, 1, 2]
 * ```
 */
export function embedding<D extends FloatDType = 'f32'>(
  table: QuantizedTensor,
  ids: Tensor<'i32'>,
  options: EmbeddingOptions<D> = {},
): Tensor<D> {
  return run(prepare(table, ids, options));
}

/** {@link embedding} on a worker thread. */
export function embeddingAsync<D extends FloatDType = 'f32'>(
  table: QuantizedTensor,
  ids: Tensor<'i32'>,
  options: EmbeddingOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(table, ids, options), options);
}

function prepare<D extends FloatDType>(
  table: QuantizedTensor,
  ids: Tensor<'i32'>,
  options: EmbeddingOptions<D>,
): Call<Tensor<D>> {
  checkWeights('embedding', 'table', table);
  checkTensor('embedding', 'ids', ids);
  checkObject('embedding', 'options', options);
  const output = outputTensor('embedding', options.out, [...ids.shape, table.cols], ids);
  return {
    op: 'embedding',
    values: [
      ...weightValues(table),
      ...tensorValues(ids),
      ...tensorValues(output),
      runValue(options),
    ],
    result: output,
  };
}
