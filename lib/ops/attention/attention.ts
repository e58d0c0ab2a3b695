import {
  type AsyncOptions,
  type Call,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
} from '../../run.js';
import { type FloatDType, outputTensor, type Tensor } from '../../tensor.js';

export interface AttentionOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** Multiplies the scores. Default, also for 0: 1 / sqrt(headDim). */
  scale?: number;
  /** Query t sees keys up to t + (keys - queries): the last query sees all. Default false. */
  causal?: boolean;
  /** With `causal`: only the last `window` of those keys. Default 0: all. */
  window?: number;
  /** Where to write, [queries, numHeads, valueDim]; must not overlap q, k, v. Default: a new f32 tensor. */
  out?: Tensor<D>;
}

/**
 * Scaled dot-product attention (Vaswani et al. 2017) with grouped query heads (Ainslie et al. 2023):
 * `output[t, h] = sum_s softmax_s(scale * q[t, h] . k[s, g]) * v[s, g]`, `g = h / (numHeads / numKvHeads)`.
 *
 * k and v may be strided views of a cache with room; their last axis should have stride 1, otherwise the
 * scalar kernel runs.
 *
 * @param q [queries, numHeads, headDim], f32, f16 or bf16
 * @param k [keys, numKvHeads, headDim], f32, f16 or bf16; at least 1 key
 * @param v [keys, numKvHeads, valueDim], dtype of k
 * @returns [queries, numHeads, valueDim]: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE` (also more queries than keys when causal), `BL_INVALID_DTYPE`,
 *   `BL_OUT_OF_RANGE`, `BL_INVALID_ARGUMENT` (a window without causal, overlapping memory), before anything
 *   is written
 *
 * @example
 * ```ts
 * const q = new Tensor('f32', [1, 0], [1, 1, 2]);
 * const kv = new Tensor('f32', [1, 0, 0, 1], [2, 1, 2]);
 * attention(q, kv, kv).toArray(); // about [0.67, 0.33]
 * ```
 */
export function attention<D extends FloatDType = 'f32'>(
  q: Tensor<FloatDType>,
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
  options: AttentionOptions<D> = {},
): Tensor<D> {
  return run(prepare(q, k, v, options));
}

/** {@link attention} on a worker thread. */
export function attentionAsync<D extends FloatDType = 'f32'>(
  q: Tensor<FloatDType>,
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
  options: AttentionOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(q, k, v, options), options);
}

function prepare<D extends FloatDType>(
  q: Tensor<FloatDType>,
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
  options: AttentionOptions<D>,
): Call<Tensor<D>> {
  const output = outputTensor(options.out, [...q.shape.slice(0, 2), ...v.shape.slice(2, 3)], q);
  return {
    op: 'attention',
    values: [
      ...tensorValues(q),
      ...tensorValues(k),
      ...tensorValues(v),
      ...tensorValues(output),
      options.scale ?? 0,
      options.causal === true ? 1 : 0,
      options.window ?? 0,
      runValue(options),
    ],
    result: output,
  };
}
