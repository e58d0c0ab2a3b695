import { checkTensor } from '../../arguments.js';
import { type AsyncOptions, type Call, run, runAsync, runValue, tensorValues } from '../../run.js';
import { type FloatDType, outputTensor, type Tensor } from '../../tensor.js';
import type { AttentionOptions, RaggedOptions } from './options.js';
import { attentionValues } from './values.js';

/**
 * Scaled dot-product attention (Vaswani et al. 2017) with grouped query heads (Ainslie et al. 2023):
 * `output[t, h] = sum_s softmax_s(scale * q[t, h] . k[s, g]) * v[s, g]`, `g = h / (numHeads / numKvHeads)`.
 *
 * Of the keys a query sees all, or those that causal, window, sinkTokens, prefix, causalBlock, mask and blockMask leave
 * (see {@link AttentionOptions}). A query that sees none gives zeros. Several sequences stand side by side with cuQueries and
 * cuKeys. For keys in pages see {@link decodeAttention}.
 *
 * With `rope` q and k are turned by their positions on the way, as the operator `rope` would turn them beforehand.
 *
 * k and v may be strided views of a cache with room; their last axis should have stride 1, otherwise the
 * scalar kernel runs.
 *
 * @param q [queries, numHeads, headDim], f32, f16 or bf16
 * @param k [keys, numKvHeads, headDim], f32, f16 or bf16
 * @param v [keys, numKvHeads, valueDim], dtype of k
 * @returns [queries, numHeads, valueDim]: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_OUT_OF_RANGE` (also cuQueries that do not rise from 0
 *   to the number of rows, cuKeys that do not rise from 0 or go beyond it), `BL_INVALID_ARGUMENT` (also overlapping memory), before anything is written
 *
 * @example
 * ```ts
 * const q = new Tensor('f32', [1, 0], [1, 1, 2]);
 * const kv = new Tensor('f32', [1, 0, 0, 1], [2, 1, 2]);
 * attention(q, kv, kv).toArray(); // about [0.67, 0.33]
 * attention(q, kv, kv, { rope: {} }).toArray(); // about [0.59, 0.41]: turned by 1 radian, the first key is less alike
 * ```
 */
export function attention<D extends FloatDType = 'f32'>(
  q: Tensor<FloatDType>,
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
  options: AttentionOptions<D> & RaggedOptions = {},
): Tensor<D> {
  return run(prepare(q, k, v, options));
}

/** {@link attention} on a worker thread. */
export function attentionAsync<D extends FloatDType = 'f32'>(
  q: Tensor<FloatDType>,
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
  options: AttentionOptions<D> & RaggedOptions & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(q, k, v, options), options);
}

function prepare<D extends FloatDType>(
  q: Tensor<FloatDType>,
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
  options: AttentionOptions<D> & RaggedOptions,
): Call<Tensor<D>> {
  checkTensor('attention', 'q', q);
  checkTensor('attention', 'v', v);
  const values = attentionValues('attention', options, { k, v });
  const output = outputTensor(
    'attention',
    options.out,
    [...q.shape.slice(0, 2), ...v.shape.slice(2, 3)],
    q,
  );
  return {
    op: 'attention',
    values: [...tensorValues(q), ...tensorValues(output), ...values, runValue(options)],
    result: output,
  };
}
