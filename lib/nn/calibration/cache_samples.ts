import { argumentError, BitloomError } from '../../errors.js';
import { Tensor } from '../../tensor.js';
import type { Decoder } from '../decoder.js';
import { turnKeys } from '../paged/turn_keys.js';

/** Keys and values of a layer for a calibration text. */
export interface CacheSamples {
  /** [tokens, numKvHeads, headDim], as a cache gets them: rotated, unless asked for otherwise. */
  readonly keys: Tensor<'f32'>;
  /** [tokens, numKvHeads, valueDim] */
  readonly values: Tensor<'f32'>;
}

/** Options of {@link cacheSamples}. */
export interface CacheSamplesOptions {
  /** Keys as they are before the rotary embedding. Default: false. */
  unrotated?: boolean;
}

/**
 * Keys and values that a decoder computes for a text, by layer: what {@link fitChannelOrder}, {@link fitLowRank} and
 * {@link fitKeyMean} learn from.
 *
 * @param text text, or token ids; at most the decoder's context
 * @throws `BL_INVALID_ARGUMENT` for a text without tokens, `BL_OUT_OF_RANGE` for one beyond the context, `BL_NOT_FOUND` for text
 *   without a tokenizer, `BL_UNSUPPORTED` on a device
 *
 * @example
 * ```ts
 * const samples = await cacheSamples(decoder, calibrationText);
 * const orders = samples.map((layer) => fitChannelOrder(layer, decoder.config.rope));
 * ```
 */
export async function cacheSamples(
  decoder: Decoder,
  text: string | readonly number[],
  { unrotated = false }: CacheSamplesOptions = {},
): Promise<CacheSamples[]> {
  const { tokenizer, config } = decoder;
  if (typeof text === 'string' && tokenizer === undefined) {
    throw new BitloomError('BL_NOT_FOUND', 'cacheSamples: the model file has no tokenizer');
  }
  if (decoder.device !== 'cpu') {
    throw argumentError('BL_UNSUPPORTED', `cacheSamples: the decoder is on ${decoder.device}`);
  }
  const ids = typeof text === 'string' ? (tokenizer?.encode(text) ?? []) : text;
  if (ids.length === 0) {
    throw argumentError('BL_INVALID_ARGUMENT', 'cacheSamples: text has no tokens');
  }
  if (ids.length > decoder.contextLength) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `cacheSamples: text has ${ids.length} tokens, expected at most ${decoder.contextLength} (= decoder.contextLength)`,
    );
  }
  const cache = decoder.createCache({ capacity: ids.length });
  try {
    const logits = await decoder.forwardAsync([...ids], { cache });
    logits.dispose();
    return Array.from({ length: config.numLayers }, (_, layer) => {
      const { keys, values } = cache.layer(layer);
      const copy = { keys: copied(keys as Tensor<'f32'>), values: copied(values as Tensor<'f32'>) };
      if (unrotated) {
        const { freqFactors } = decoder.parts.layers[layer]?.attention.options ?? {};
        turnBack(copy.keys, decoder, freqFactors);
      }
      return copy;
    });
  } finally {
    cache.dispose();
  }
}

const copied = (tensor: Tensor<'f32'>): Tensor<'f32'> =>
  new Tensor('f32', Float32Array.from(tensor.data), tensor.shape);

function turnBack(keys: Tensor<'f32'>, decoder: Decoder, freqFactors?: Tensor<'f32'>): void {
  const { mode, theta, rotaryDim, scaling } = decoder.config.rope;
  const tokens = keys.shape[0] as number;
  turnKeys(
    keys,
    Int32Array.from({ length: tokens }, (_, t) => -t),
    {
      mode,
      theta,
      rotaryDim,
      ...(scaling === undefined ? {} : { scaling }),
      ...(freqFactors === undefined ? {} : { freqFactors }),
    },
  );
  // YaRN's magnitude is in the keys; where they are turned on anew it would come in a second time.
  if (scaling?.type !== 'yarn') return;
  const { data } = keys;
  const headDim = keys.shape[2] as number;
  for (let i = 0; i < data.length; i++) {
    if (i % headDim < rotaryDim) data[i] = (data[i] as number) / scaling.attentionFactor;
  }
}
