import { checkObject } from '../arguments.js';
import { argumentError, BitloomError } from '../errors.js';
import type { Decoder } from './decoder.js';
import type { DecoderCache } from './decoder_cache.js';
import type { PagedCacheOptions } from './paged_cache_options.js';

/** Options of {@link perplexity}. */
export interface PerplexityOptions {
  /** Tokens of a window; each window is scored on its own. Default: the decoder's contextLength. */
  window?: number;
  /** Keys and values in pages, to see what a format or a policy costs. A policy with memory of its own, or a cache, serves one window. */
  cache?: PagedCacheOptions | (() => PagedCacheOptions | DecoderCache);
  /** Tokens computed at once: a policy acts between them. Default: the window. */
  step?: number;
  signal?: AbortSignal;
}

/** What {@link perplexity} gives. */
export interface Perplexity {
  /** exp(loss): 1 is a model that knows every token in advance. */
  perplexity: number;
  /** Mean negative log probability, in nats per token. */
  loss: number;
  /** Tokens scored. */
  tokens: number;
}

/**
 * How well a model predicts a text: `exp(-mean(log p(token | tokens before it in its window)))`. Each window begins
 * with BOS where the model has one, which is not scored.
 *
 * @param text text, or token ids without BOS
 * @throws `BL_INVALID_ARGUMENT` for a text of fewer than two tokens
 */
export async function perplexity(
  decoder: Decoder,
  text: string | readonly number[],
  options: PerplexityOptions = {},
): Promise<Perplexity> {
  const { window = decoder.contextLength, signal, cache: how } = options;
  const { step = window } = options;
  if (how !== undefined && typeof how !== 'function') checkObject('perplexity', 'cache', how);
  if (!Number.isInteger(window) || window < 2 || window > decoder.contextLength) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `perplexity: window is ${window}, expected 2 to ${decoder.contextLength} (= decoder.contextLength)`,
    );
  }
  if (!Number.isInteger(step) || step < 1) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `perplexity: step is ${step}, expected a whole number of at least 1`,
    );
  }
  const { tokenizer, config } = decoder;
  if (typeof text === 'string' && tokenizer === undefined) {
    throw new BitloomError('BL_NOT_FOUND', 'perplexity: the model file has no tokenizer');
  }
  const ids = typeof text === 'string' ? (tokenizer?.encode(text, { addBos: false }) ?? []) : text;
  const begin = tokenizer?.addBos && tokenizer.bosId !== undefined ? [tokenizer.bosId] : [];
  const perWindow = window - begin.length;
  let loss = 0;
  let tokens = 0;
  for (let first = 0; first < ids.length; first += perWindow) {
    const part = [...begin, ...ids.slice(first, first + perWindow)];
    if (part.length < 2) continue;
    const cache =
      how === undefined
        ? decoder.createCache({ capacity: part.length })
        : pagedCache(decoder, part.length, typeof how === 'function' ? how() : how);
    try {
      for (let at = 0; at < part.length; at += step) {
        const logits = await decoder.forwardAsync(part.slice(at, at + step), {
          cache,
          logits: 'all',
          ...(signal === undefined ? {} : { signal }),
        });
        const { data } = logits;
        for (let i = 0; i < step && at + i + 1 < part.length; i++) {
          const row = data.subarray(i * config.vocabSize, (i + 1) * config.vocabSize);
          loss -= logProbability(row, part[at + i + 1] as number);
          tokens++;
        }
        logits.dispose();
      }
    } finally {
      cache.dispose();
    }
  }
  if (tokens === 0) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `perplexity: text has ${ids.length} tokens, expected two or more`,
    );
  }
  loss /= tokens;
  return { perplexity: Math.exp(loss), loss, tokens };
}

function pagedCache(
  decoder: Decoder,
  capacity: number,
  how: PagedCacheOptions | DecoderCache,
): DecoderCache {
  checkObject('perplexity', 'cache()', how);
  return 'acquire' in how ? how : decoder.createPagedCache({ capacity, ...how });
}

/** log softmax(logits)[id], in float64. */
function logProbability(logits: Float32Array, id: number): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > largest) largest = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - largest);
  return (logits[id] as number) - largest - Math.log(sum);
}
