import { checkNumber, checkObject, checkTensor } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { type AsyncOptions, type Call, run, runAsync, runValue, tensorValues } from '../../run.js';
import { type FloatDType, outputTensor, type Tensor } from '../../tensor.js';
import type { AttentionOptions, KVSegment } from './options.js';
import { attentionValues } from './values.js';

/** Options of {@link decodeAttention}; causal is true by default. */
export type DecodeAttentionOptions<D extends FloatDType = 'f32'> = Omit<
  AttentionOptions<D>,
  'blockMask'
> & {
  /** Shape `[sequences + 1]`: sequence i has queries [cuQueries[i], cuQueries[i + 1]). Default: equally many each. */
  cuQueries?: Tensor<'i32'>;
  /** Where the pages hold no values: channels of a value, the first ones of its key. Default: all of them. */
  valueDim?: number;
};

/**
 * Attention of a few new tokens of each sequence over keys and values in pages: {@link attention}, where sequence i
 * has the keys of row i of the block table. With two segments its keys are those of the first, then those of the second (the
 * newest tokens, not quantized yet).
 *
 * One long sequence is cut along its keys for all threads; pages that sequences share from their beginning are read once for
 * all of them. Neither changes a bit of the result, nor do page size (a multiple of 16), threads or what else
 * is in the batch.
 *
 * With `rope` pages hold keys as they were before rotation: they are turned when they are read, so that the same pages may stand at
 * any positions. (The kernels of compute `'i8'` multiply codes as they stand, which cannot be turned: f32 is computed in.)
 *
 * @param q [queries, numHeads, headDim], f32, f16 or bf16: the sequences' queries side by side
 * @param segments pages, block tables and lengths; lengths count the new tokens too, whose keys are appended before
 * @returns [queries, numHeads, valueDim]: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_FORMAT`, `BL_OUT_OF_RANGE` (a length or a page number that can not be),
 *   `BL_INVALID_ARGUMENT`, before anything is written
 *
 * @example
 * ```ts
 * const pages = new KVPages({ keyFormat: 'i8', pageSize: 64, numKvHeads: 8, keyDim: 128, numPages: 16 });
 * kvAppend(k, v, slots, pages);
 * const blockTable = new Tensor('i32', [0, 1, 2], [1, 3]);
 * const lengths = new Tensor('i32', [130], [1]);
 * const mixed = decodeAttention(q, [{ pages, blockTable, lengths }]);
 *
 * // The same pages, had their keys been appended before rotation: the two parts of a text the other way round.
 * const positions = Int32Array.from({ length: 130 }, (_, s) => (s < 64 ? s + 66 : s - 64));
 * const keyPositions = new Tensor('i32', positions, [1, 130]);
 * const turned = decodeAttention(q, [{ pages, blockTable, lengths }], { rope: { theta: 500000, keyPositions } });
 * ```
 */
export function decodeAttention<D extends FloatDType = 'f32'>(
  q: Tensor<FloatDType>,
  segments: readonly KVSegment[],
  options: DecodeAttentionOptions<D> = {},
): Tensor<D> {
  return run(prepare(q, segments, options));
}

/** {@link decodeAttention} on a worker thread. */
export function decodeAttentionAsync<D extends FloatDType = 'f32'>(
  q: Tensor<FloatDType>,
  segments: readonly KVSegment[],
  options: DecodeAttentionOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(q, segments, options), options);
}

function prepare<D extends FloatDType>(
  q: Tensor<FloatDType>,
  segments: readonly KVSegment[],
  options: DecodeAttentionOptions<D>,
): Call<Tensor<D>> {
  const op = 'decodeAttention';
  checkObject(op, 'options', options);
  checkTensor(op, 'q', q);
  if (!Array.isArray(segments) || segments.length < 1 || segments.length > 2) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: segments is not an array of 1 or 2 segments`,
    );
  }
  const { valueDim, ...rest } = options;
  if (valueDim !== undefined) {
    checkNumber(
      op,
      'valueDim',
      valueDim,
      'a whole number of at least 1',
      (value) => Number.isSafeInteger(value) && value > 0,
    );
  }
  const values = attentionValues(op, rest, { segments });
  const { pages } = segments[0] as KVSegment;
  const dim = pages.values === undefined ? (valueDim ?? pages.keyDim) : pages.valueDim;
  const output = outputTensor(op, options.out, [...q.shape.slice(0, 2), dim], q);
  return {
    op: 'attention',
    values: [...tensorValues(q), ...tensorValues(output), ...values, runValue(options)],
    result: output,
  };
}
