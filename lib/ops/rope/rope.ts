import { described } from '../../arguments.js';
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
import { type FloatDType, outputTensor, type Tensor } from '../../tensor.js';

/** Which channels {@link rope} pairs: (2i, 2i + 1), or (i, i + rotaryDim / 2). */
export type RopeMode = 'interleaved' | 'half';

/**
 * How frequencies are stretched beyond the context a model was trained with; the names and meanings of
 * Hugging Face configurations (`rope_scaling`).
 */
export type RopeScaling =
  /** Positions divided by `factor`. */
  | { type: 'linear'; factor: number }
  /** Llama 3.1: long wavelengths divided by `factor`, short ones kept, smooth in between. */
  | {
      type: 'llama3';
      factor: number;
      /** Context length the model was trained with. */
      originalContext: number;
      /** Default 1. */
      lowFreqFactor?: number;
      /** Default 4. */
      highFreqFactor?: number;
    }
  /** YaRN (Peng et al. 2023): interpolation by wavelength and a scaled magnitude. */
  | {
      type: 'yarn';
      factor: number;
      /** Context length the model was trained with. */
      originalContext: number;
      /** Magnitude of cos and sin. Default: 0.1 * ln(factor) + 1. */
      attentionFactor?: number;
      /** Default 32. */
      betaFast?: number;
      /** Default 1. */
      betaSlow?: number;
    };

const modeIds: Record<RopeMode, number> = { interleaved: 0, half: 1 };
const scalingIds: Record<RopeScaling['type'], number> = { linear: 1, llama3: 2, yarn: 3 };

export interface RopeOptions<D extends FloatDType = 'f32'> extends RunOptions {
  /** Default `'half'`: Hugging Face weights. GGUF files of the Llama family are `'interleaved'`. */
  mode?: RopeMode;
  /** Channels of each head that are rotated, an even number; the rest is copied. Default: all. */
  rotaryDim?: number;
  /** Base of the frequencies. Default 10000. */
  theta?: number;
  /** Default: none. */
  scaling?: RopeScaling;
  /** [rotaryDim / 2] divisors of the frequencies, above 0. */
  freqFactors?: Tensor<'f32'>;
  /** Where to write, of x's shape; may be x itself. Default: a new f32 tensor. */
  out?: Tensor<D>;
}

/**
 * Rotary position embedding (Su et al. 2021): turns pair i of each head by the angle
 * `positions[token] * theta^(-2i / rotaryDim)`:
 * `a' = a cos - b sin`, `b' = a sin + b cos`.
 *
 * @param x [..., tokens, heads, headDim], f32, f16 or bf16
 * @param positions [tokens], not negative; the same for all leading axes
 * @returns as x: `options.out`, or a new f32 tensor
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_OUT_OF_RANGE` (a position, factor or dimension),
 *   `BL_INVALID_ARGUMENT` (unknown mode or scaling; out overlaps x in part), before anything is written
 *
 * @example
 * ```ts
 * const q = new Tensor('f32', [1, 0, 0, 1], [1, 1, 4]);
 * rope(q, new Tensor('i32', [3], [1]), { out: q }); // in place
 * ```
 */
export function rope<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  positions: Tensor<'i32'>,
  options: RopeOptions<D> = {},
): Tensor<D> {
  return run(prepare(x, positions, options));
}

/** {@link rope} on a worker thread. */
export function ropeAsync<D extends FloatDType = 'f32'>(
  x: Tensor<FloatDType>,
  positions: Tensor<'i32'>,
  options: RopeOptions<D> & AsyncOptions = {},
): Promise<Tensor<D>> {
  return runAsync(() => prepare(x, positions, options), options);
}

/** [scaling, factor, lowFreqFactor, highFreqFactor, originalContext, attentionFactor, betaFast, betaSlow] */
function scalingValues(scaling: RopeScaling | undefined): number[] {
  if (scaling === undefined) return [0, 1, 1, 4, 0, 0, 0, 0];
  if (!Object.hasOwn(scalingIds, scaling.type)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `rope: scaling.type is ${described(scaling.type)}, expected linear, llama3 or yarn`,
    );
  }
  const id = scalingIds[scaling.type];
  switch (scaling.type) {
    case 'linear':
      return [id, scaling.factor, 1, 4, 0, 0, 0, 0];
    case 'llama3': {
      const { lowFreqFactor = 1, highFreqFactor = 4 } = scaling;
      return [id, scaling.factor, lowFreqFactor, highFreqFactor, scaling.originalContext, 0, 0, 0];
    }
    case 'yarn': {
      const { attentionFactor = 0, betaFast = 32, betaSlow = 1 } = scaling;
      return [
        id,
        scaling.factor,
        1,
        4,
        scaling.originalContext,
        attentionFactor,
        betaFast,
        betaSlow,
      ];
    }
  }
}

function prepare<D extends FloatDType>(
  x: Tensor<FloatDType>,
  positions: Tensor<'i32'>,
  options: RopeOptions<D>,
): Call<Tensor<D>> {
  const mode = options.mode ?? 'half';
  if (!Object.hasOwn(modeIds, mode)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `rope: mode is ${described(mode)}, expected interleaved or half`,
    );
  }
  const output = outputTensor(options.out, x.shape, x);
  return {
    op: 'rope',
    values: [
      ...tensorValues(x),
      ...tensorValues(positions),
      ...optionalTensorValues('rope', 'freqFactors', options.freqFactors),
      ...tensorValues(output),
      modeIds[mode],
      options.rotaryDim ?? 0,
      options.theta ?? 10000,
      ...scalingValues(options.scaling),
      runValue(options),
    ],
    result: output,
  };
}
