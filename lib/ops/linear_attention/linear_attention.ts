import { checkOptions, checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import {
  type AsyncOptions,
  type Call,
  optionalTensorValues,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
} from '../../run.js';
import { type FloatDType, outputTensor, Tensor } from '../../tensor.js';

const ruleIds = { decay: 0, delta: 1 };

/** What a token does to the state after its decay: see {@link linearAttention}. */
export type LinearRule = keyof typeof ruleIds;

export interface LinearAttentionOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** [sequences, numKvHeads, keyDim, valueDim] f32, contiguous: read, and updated in place. Default: new zeros. */
  state?: Tensor<'f32'>;
  /**
   * ln g, at most 0: [numKvHeads] (a constant of each head), [tokens, numKvHeads] or [tokens, numKvHeads, keyDim].
   * -Infinity, and anything up to -200, forgets the state whatever is in it. Default: g = 1.
   */
  decay?: Tensor<'f32'>;
  /** [tokens, numKvHeads], for the rule 'delta'. Default: 1. */
  beta?: Tensor<'f32'>;
  /** Shape `[sequences + 1]`: sequence i is tokens [cuTokens[i], cuTokens[i + 1]). Default: one sequence. */
  cuTokens?: Tensor<'i32'>;
  /** Multiplies the output. Default, also for 0: 1 / sqrt(keyDim). */
  scale?: number;
  /** Default 'decay'. */
  rule?: LinearRule;
  /** Tokens computed at a time, up to 512. Bits of the result depend on it. Default, also for 0: chosen. */
  chunk?: number;
  /** Where to write, [tokens, numHeads, valueDim]; must not overlap what is read. Default: a new f32 tensor. */
  out?: Tensor<D>;
}

const known: ReadonlySet<string> = new Set<keyof (LinearAttentionOptions & AsyncOptions)>([
  ...(['isa', 'threads', 'stream', 'signal'] as const),
  ...(['state', 'decay', 'beta', 'cuTokens', 'scale', 'rule', 'chunk', 'out'] as const),
]);

/** What {@link linearAttention} returns. */
export interface LinearAttentionResult<D extends FloatDType = 'f32'> {
  /** Shape `[tokens, numHeads, valueDim]`: `options.out`, or a new f32 tensor. */
  output: Tensor<D>;
  /** After the last token of each sequence: `options.state`, or a new tensor. */
  state: Tensor<'f32'>;
}

/**
 * Attention without softmax, whose memory of the past is a matrix S [keyDim, valueDim] for each kv head. For each token
 *
 * - `S = g S`, by row where g is a vector,
 * - `S = S + k v^T` (rule 'decay') or `S = S + k (beta (v - S^T k))^T` (rule 'delta'),
 * - `output[h] = scale * S^T q[h]` for the query heads h of the kv head, `floor(h / (numHeads / numKvHeads))`.
 *
 * | model | rule | decay |
 * |---|---|---|
 * | linear transformer (Katharopoulos et al. 2020, without its normalizer) | decay | none |
 * | RetNet (Sun et al. 2023), Lightning Attention-2 (Qin et al. 2024) | decay | [numKvHeads] |
 * | Mamba-2 / SSD (Dao and Gu 2024): q = C, k = B, v = dt x | decay | [tokens, numKvHeads] |
 * | gated linear attention, GLA (Yang et al. 2023) | decay | [tokens, numKvHeads, keyDim] |
 * | DeltaNet (Yang et al. 2024) | delta | none |
 * | Gated DeltaNet (Yang, Kautz and Hatamizadeh 2024) | delta | [tokens, numKvHeads] |
 * | Kimi delta attention (Kimi team 2025) | delta | [tokens, numKvHeads, keyDim] |
 *
 * Many tokens are computed in chunks, a few one by one; both give the same within rounding. Pass the state that came
 * back to go on with the next tokens. A decay above 0 grows the state as the formula says, up to infinity. With the
 * delta rule keys should have length about 1: where `beta k . k` exceeds 2 the recurrence itself diverges.
 *
 * @param q [tokens, numHeads, keyDim], f32, f16 or bf16
 * @param k [tokens, numKvHeads, keyDim], f32, f16 or bf16
 * @param v [tokens, numKvHeads, valueDim], f32, f16 or bf16
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_OUT_OF_RANGE` (scale, chunk, or cuTokens that do not rise from 0
 *   to the number of tokens), `BL_INVALID_ARGUMENT` (an unknown rule, beta with the rule 'decay', overlapping memory),
 *   before anything is written
 *
 * @example
 * ```ts
 * const x = new Tensor('f32', [1, 2, 3], [3, 1, 1]);
 * const decay = new Tensor('f32', [Math.log(0.5)], [1]);
 * const { output, state } = linearAttention(x, x, x, { decay });
 * output.toArray(); // [1, 9, 33.75]: q times S = 1, 4.5, 11.25
 * linearAttention(x, x, x, { decay, state }); // goes on
 * ```
 */
export function linearAttention<D extends FloatDType = 'f32'>(
  q: Tensor<FloatDType>,
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
  options: LinearAttentionOptions<D> = {},
): LinearAttentionResult<D> {
  return run(prepare(q, k, v, options));
}

/** {@link linearAttention} on a worker thread. */
export function linearAttentionAsync<D extends FloatDType = 'f32'>(
  q: Tensor<FloatDType>,
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
  options: LinearAttentionOptions<D> & AsyncOptions = {},
): Promise<LinearAttentionResult<D>> {
  return runAsync(() => prepare(q, k, v, options), options);
}

/** Zeros where the shapes are as they should be; what is wrong with them the native call says. */
function newState(k: Tensor, v: Tensor, cuTokens: Tensor<'i32'> | undefined): Tensor<'f32'> {
  const sequences = cuTokens === undefined ? 1 : Math.max((cuTokens.shape[0] ?? 0) - 1, 0);
  const shape = [sequences, k.shape[1] ?? 0, k.shape[2] ?? 0, v.shape[2] ?? 0];
  return Tensor.empty('f32', shape, k.device);
}

function prepare<D extends FloatDType>(
  q: Tensor<FloatDType>,
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
  options: LinearAttentionOptions<D>,
): Call<LinearAttentionResult<D>> {
  const op = 'linearAttention';
  checkOptions(op, options, known);
  checkTensor(op, 'q', q);
  checkTensor(op, 'k', k);
  checkTensor(op, 'v', v);
  const { decay, beta, cuTokens } = options;
  const decayValues = optionalTensorValues(op, 'decay', decay);
  const betaValues = optionalTensorValues(op, 'beta', beta);
  const cuTokensValues = optionalTensorValues(op, 'cuTokens', cuTokens);
  const rule = options.rule ?? 'decay';
  if (!Object.hasOwn(ruleIds, rule)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: rule is ${described(rule)}, expected decay or delta`,
    );
  }
  const output = outputTensor(op, options.out, [...q.shape.slice(0, 2), ...v.shape.slice(2, 3)], q);
  const state = options.state ?? newState(k, v, cuTokens);
  checkTensor(op, 'state', state);
  return {
    op,
    values: [
      ...tensorValues(q),
      ...tensorValues(k),
      ...tensorValues(v),
      ...tensorValues(output),
      ...tensorValues(state),
      ...decayValues,
      ...betaValues,
      ...cuTokensValues,
      options.scale ?? 0,
      ruleIds[rule],
      options.chunk ?? 0,
      runValue(options),
    ],
    result: { output, state },
  };
}
