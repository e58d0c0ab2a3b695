import { described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { Tensor } from '../../tensor.js';

/** Which channels `rope` pairs: (2i, 2i + 1), or (i, i + rotaryDim / 2). */
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

/** How rotary position embedding turns channels. */
export interface RopeTurns {
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
}

const modeIds: Record<RopeMode, number> = { interleaved: 0, half: 1 };
const scalingIds: Record<RopeScaling['type'], number> = { linear: 1, llama3: 2, yarn: 3 };

/**
 * [mode, rotaryDim, theta, ...scaling], as native code reads them.
 *
 * @param before what stands before the options' names in messages
 */
export function ropeNumbers(op: string, before: string, options: RopeTurns): number[] {
  const { mode = 'half', rotaryDim = 0, theta = 10000, scaling } = options;
  if (!Object.hasOwn(modeIds, mode)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: ${before}mode is ${described(mode)}, expected interleaved or half`,
    );
  }
  return [modeIds[mode], rotaryDim, theta, ...scalingValues(op, before, scaling)];
}

/** [scaling, factor, lowFreqFactor, highFreqFactor, originalContext, attentionFactor, betaFast, betaSlow] */
function scalingValues(op: string, before: string, scaling: RopeScaling | undefined): number[] {
  if (scaling === undefined) return [0, 1, 1, 4, 0, 0, 0, 0];
  if (!Object.hasOwn(scalingIds, scaling.type)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: ${before}scaling.type is ${described(scaling.type)}, expected linear, llama3 or yarn`,
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
