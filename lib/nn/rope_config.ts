import type { MetadataReader } from './config.js';
import { invalidModel, unsupportedModel } from './model_error.js';

/** Rotary embedding of a model, as `rope` takes it; `freqFactors` come from a tensor. */
export interface RopeConfig {
  readonly mode: 'interleaved' | 'half';
  readonly theta: number;
  /** Channels of a head that turn; the rest pass. */
  readonly rotaryDim: number;
  readonly scaling: RopeScaling | undefined;
}

export type RopeScaling =
  | { readonly type: 'linear'; readonly factor: number }
  | {
      readonly type: 'llama3';
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalContext: number;
    }
  | {
      readonly type: 'yarn';
      readonly factor: number;
      readonly originalContext: number;
      readonly attentionFactor: number;
      readonly betaFast: number;
      readonly betaSlow: number;
    };

/** Reads `<architecture>.rope.*`; key names as llama.cpp writes them. */
export function readRope(
  reader: MetadataReader,
  mode: 'interleaved' | 'half',
  headDim: number,
): RopeConfig {
  const rotaryDim = reader.integer('rope.dimension_count', 2, headDim, headDim);
  if (rotaryDim % 2 !== 0) {
    throw invalidModel(
      `metadata ${reader.architecture}.rope.dimension_count is ${rotaryDim}, expected an even number`,
    );
  }
  const theta = reader.number('rope.freq_base', 1, 1e12, 10000);
  return { mode, theta, rotaryDim, scaling: readScaling(reader) };
}

function readScaling(reader: MetadataReader): RopeScaling | undefined {
  // Files before 2023-08 have rope.scale_linear only.
  const oldFactor = reader.number('rope.scale_linear', 0, 1e6, 1);
  const type = reader.text('rope.scaling.type') ?? (oldFactor > 1 ? 'linear' : 'none');
  if (type === 'none' || type === '') return undefined;
  // Some converters write 0 for "no scaling".
  const factor = reader.number('rope.scaling.factor', 0, 1e6, oldFactor) || 1;
  if (factor < 1) {
    throw invalidModel(
      `metadata ${reader.architecture}.rope.scaling.factor is ${factor}, expected at least 1`,
    );
  }
  const context = (): number =>
    reader.integer(
      'rope.scaling.original_context_length',
      1,
      2 ** 31 - 1,
      reader.integer('context_length', 1, 2 ** 31 - 1),
    );
  switch (type) {
    case 'linear':
      return { type, factor };
    case 'llama3':
      return {
        type,
        factor,
        lowFreqFactor: reader.number('rope.scaling.low_freq_factor', 0, 1e6, 1),
        highFreqFactor: reader.number('rope.scaling.high_freq_factor', 0, 1e6, 4),
        originalContext: context(),
      };
    case 'yarn': {
      // The file's factor multiplies the magnitude that YaRN derives from the interpolation.
      const magnitude =
        reader.number('rope.scaling.yarn_attn_factor', 0, 1e6, 0) ||
        reader.number('rope.scaling.attn_factor', 0, 1e6, 0) ||
        1;
      return {
        type,
        factor,
        originalContext: context(),
        // deepseek2 scales scores instead.
        attentionFactor:
          reader.architecture === 'deepseek2' ? 1 : magnitude * (0.1 * Math.log(factor) + 1),
        betaFast: reader.number('rope.scaling.yarn_beta_fast', 0, 1e6, 32),
        betaSlow: reader.number('rope.scaling.yarn_beta_slow', 0, 1e6, 1),
      };
    }
    default:
      throw unsupportedModel(
        `${reader.architecture}.rope.scaling.type is ${JSON.stringify(type.slice(0, 80))}, expected none, linear, llama3 or yarn`,
      );
  }
}
