import { described } from '../../arguments.js';
import { argumentError, BitloomError } from '../../errors.js';
import type { Tensor } from '../../tensor.js';
import type { Decoder } from '../decoder.js';
import { SamplingCache } from './sampling_cache.js';

/** What a layer's attention gets for a calibration text, before the rotary embedding. */
export interface CacheSamples {
  /** [tokens, numHeads, headDim]; left out: all channels of the keys weigh the same. */
  readonly queries?: Tensor<'f32'>;
  /** [tokens, numKvHeads, headDim] */
  readonly keys: Tensor<'f32'>;
  /** [tokens, numKvHeads, valueDim] */
  readonly values: Tensor<'f32'>;
}

/**
 * Queries, keys and values that a decoder computes for a text, by layer, not rotated: what {@link fitChannelOrder} and
 * {@link fitLowRank} learn from. Computes on this thread, all of the text in f32 memory.
 *
 * @param text text, or token ids; at most the decoder's context
 * @throws `BL_INVALID_ARGUMENT` for a text without tokens, `BL_OUT_OF_RANGE` for one beyond the context, `BL_NOT_FOUND` for text
 *   without a tokenizer, `BL_UNSUPPORTED` on a device
 *
 * @example
 * ```ts
 * const samples = cacheSamples(decoder, calibrationText);
 * const channelOrders = samples.map((layer) => fitChannelOrder(layer, decoder.config.rope));
 * ```
 */
export function cacheSamples(decoder: Decoder, text: string | readonly number[]): CacheSamples[] {
  const { tokenizer, contextLength } = decoder;
  if (typeof text === 'string' && tokenizer === undefined) {
    throw new BitloomError('BL_NOT_FOUND', 'cacheSamples: the model file has no tokenizer');
  }
  if (decoder.device !== 'cpu') {
    throw argumentError('BL_UNSUPPORTED', `cacheSamples: the decoder is on ${decoder.device}`);
  }
  if (typeof text !== 'string' && !Array.isArray(text) && !ArrayBuffer.isView(text)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `cacheSamples: text is ${described(text)}, expected text or a list of token ids`,
    );
  }
  const ids = typeof text === 'string' ? (tokenizer?.encode(text) ?? []) : text;
  if (ids.length === 0) {
    throw argumentError('BL_INVALID_ARGUMENT', 'cacheSamples: text has no tokens');
  }
  if (ids.length > contextLength) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `cacheSamples: text has ${ids.length} tokens, expected at most ${contextLength} (= decoder.contextLength)`,
    );
  }
  const cache = new SamplingCache(decoder.config, ids.length);
  decoder.forward([...ids], { cache }).dispose();
  return cache.samples;
}
