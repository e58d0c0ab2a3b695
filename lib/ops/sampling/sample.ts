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
import type { Tensor } from '../../tensor.js';

export interface SampleOptions extends RunOptions {
  /** At least 0. Default 1. 0 is greedy: the highest logit, the lowest id among equals. */
  temperature?: number;
  /** Only the `topK` highest logits. Default 0: all. */
  topK?: number;
  /** Only the smallest set of likeliest tokens that has this probability, in (0, 1]. Default 1: all. */
  topP?: number;
  /** Drops tokens below `minP` times the largest probability, in [0, 1). Default 0: none. */
  minP?: number;
  /** Divides the positive and multiplies the negative logits of `previous`. Default 1: none. */
  repetitionPenalty?: number;
  /** [count] ids in [0, vocab); each counts once. */
  previous?: Tensor<'i32'>;
  /** Names the sequence of draws, in [0, 2^64). Default 0. */
  seed?: number | bigint;
  /** Which draw of the sequence, in [0, 2^64): the index of the token in the text, say. Default 0. */
  position?: number | bigint;
}

/** The token that {@link sample} picked. */
export interface Sampled {
  token: number;
  /** Of the token among those that topK, topP and minP left; 1 when greedy. */
  probability: number;
}

/**
 * Picks a token. In this order: repetition penalty (Keskar et al. 2019); temperature 0: the highest logit;
 * else top-k, softmax at the temperature, top-p (Holtzman et al. 2020), min-p (Nguyen et al. 2024) and one
 * draw. The draw is number `position` of SplitMix64 started at `seed`: a pure function, the same on every
 * machine; call again with the next position for the next token.
 *
 * @param logits [vocab] f32, contiguous; -infinity excludes a token, +infinity ones share probability 1
 * @throws `BL_NON_FINITE` (a NaN, or only -infinity), `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`,
 *   `BL_OUT_OF_RANGE` (an option or an id of `previous`)
 *
 * @example
 * ```ts
 * const { token } = sample(logits, { temperature: 0.8, topP: 0.95, seed: 42, position: step });
 * ```
 */
export function sample(logits: Tensor<'f32'>, options: SampleOptions = {}): Sampled {
  return run(prepare(logits, options));
}

/** {@link sample} on a worker thread. */
export function sampleAsync(
  logits: Tensor<'f32'>,
  options: SampleOptions & AsyncOptions = {},
): Promise<Sampled> {
  return runAsync(() => prepare(logits, options), options);
}

/** Reads what the native call wrote when asked: in a recorded sequence the call has yet to run. */
function sampled(token: Int32Array, probability: Float32Array): Sampled {
  return Object.defineProperties({} as Sampled, {
    token: { get: () => token[0], enumerable: true },
    probability: { get: () => probability[0], enumerable: true },
  });
}

function prepare(logits: Tensor<'f32'>, options: SampleOptions): Call<Sampled> {
  const token = new Int32Array(1);
  const probability = new Float32Array(1);
  return {
    op: 'sample',
    values: [
      ...tensorValues(logits),
      ...optionalTensorValues('sample', 'previous', options.previous),
      options.temperature ?? 1,
      options.topK ?? 0,
      options.topP ?? 1,
      options.minP ?? 0,
      options.repetitionPenalty ?? 1,
      options.seed ?? 0,
      options.position ?? 0,
      token,
      probability,
      runValue(options),
    ],
    result: sampled(token, probability),
  };
}
