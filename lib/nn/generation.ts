import { checkObject } from '../arguments.js';
import { argumentError, BitloomError } from '../errors.js';
import { sample } from '../ops/sampling/sample.js';
import { Tensor } from '../tensor.js';
import type { Decoder } from './decoder.js';
import type { DecoderCache } from './decoder_cache.js';
import type { PagedCacheOptions } from './paged_cache_options.js';
import { StopText } from './stop_text.js';

/** Options of `decoder.generate`. */
export interface GenerateOptions {
  /** Tokens to generate at most. Default: as many as the context takes. */
  maxTokens?: number;
  /** 0 (default) is greedy: always the likeliest token. */
  temperature?: number;
  /** Only the k likeliest tokens. Default 0: all. */
  topK?: number;
  /** Only the likeliest tokens that have this probability together. Default 1: all. */
  topP?: number;
  /** Only tokens at least this times as likely as the likeliest. Default 0: all. */
  minP?: number;
  /** Makes the last 64 tokens less likely. Default 1: does not. */
  repetitionPenalty?: number;
  /** Of the draws: the same seed gives the same text. Default 0. */
  seed?: number | bigint;
  /** Texts that end the generation; they are not part of what it gives. */
  stop?: string | readonly string[];
  /** Tokens that end the generation. Default: those that end or begin a text, as the file says. */
  stopTokens?: readonly number[];
  /** Whether control tokens written out in the prompt (`<|im_end|>`) are such tokens. Default false. */
  special?: boolean;
  /** Ends the generation with an error, the signal's reason. */
  signal?: AbortSignal;
  /**
   * Continues after the tokens in this cache. Or how a new one keeps keys and values:
   * `{ format: 'i4', policy: snapKV({ budget: 512 }) }`. Default: a new one in f32. New ones are disposed of at the end.
   */
  cache?: DecoderCache | PagedCacheOptions;
}

/** Why a generation ended. */
export type FinishReason = 'stop' | 'length' | 'context';

/** What a generation took. */
export interface GenerationStats {
  promptTokens: number;
  /** Time until the logits after the prompt were there. */
  promptSeconds: number;
  /** Tokens generated; a token that ended the text is not among them. */
  tokens: number;
  /** Steps of one token each, and their time, sampling included. */
  steps: number;
  decodeSeconds: number;
  promptTokensPerSecond: number;
  tokensPerSecond: number;
}

// As in llama.cpp.
const penaltyWindow = 64;

const seconds = (since: bigint): number => Number(process.hrtime.bigint() - since) / 1e9;

/**
 * A text on its way: iterate over it for its pieces. It starts with the iteration, and can be iterated once.
 *
 * @example
 * ```ts
 * const generation = decoder.generate('Once upon a time', { maxTokens: 100 });
 * for await (const text of generation) process.stdout.write(text);
 * console.log(generation.finishReason, generation.stats.tokensPerSecond);
 * ```
 */
export class Generation implements AsyncIterable<string> {
  /** Tokens of the prompt. */
  readonly promptTokens: readonly number[];
  /** Tokens generated so far. */
  readonly tokens: number[] = [];
  finishReason: FinishReason | undefined;
  #promptSeconds = 0;
  #decodeSeconds = 0;
  #steps = 0;
  #started = false;

  /** @internal */
  constructor(
    private readonly decoder: Decoder,
    prompt: string | readonly number[],
    private readonly options: GenerateOptions,
  ) {
    checkOptions(options);
    this.promptTokens = this.#encode(prompt);
    if (this.promptTokens.length === 0) {
      throw argumentError('BL_INVALID_ARGUMENT', 'generate: prompt has no tokens');
    }
    const room = this.#capacity() - (this.#given?.length ?? 0);
    if (this.promptTokens.length > room) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `generate: prompt has ${this.promptTokens.length} tokens, expected at most ${room} (the room in the context)`,
      );
    }
  }

  get stats(): GenerationStats {
    const promptTokens = this.promptTokens.length;
    const rate = (count: number, time: number): number => (time > 0 ? count / time : 0);
    return {
      promptTokens,
      promptSeconds: this.#promptSeconds,
      tokens: this.tokens.length,
      steps: this.#steps,
      decodeSeconds: this.#decodeSeconds,
      promptTokensPerSecond: rate(promptTokens, this.#promptSeconds),
      tokensPerSecond: rate(this.#steps, this.#decodeSeconds),
    };
  }

  /** The whole text. */
  async text(): Promise<string> {
    let text = '';
    for await (const piece of this) text += piece;
    return text;
  }

  /** The text, piece by piece, as it is generated. */
  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    if (this.#started) {
      throw argumentError('BL_INVALID_ARGUMENT', 'generate: a generation can be iterated once');
    }
    this.#started = true;
    const { decoder, options } = this;
    const { maxTokens = Number.POSITIVE_INFINITY, stop = [] } = options;
    const wanted = this.promptTokens.length + maxTokens;
    const capacity = Math.min(this.#capacity(), wanted);
    const { cache: how } = options;
    const cache =
      this.#given ??
      (how === undefined
        ? decoder.createCache({ capacity })
        : decoder.createPagedCache({ capacity, ...(how as PagedCacheOptions) }));
    const pieces = decoder.tokenizer?.createDecoder({ after: this.promptTokens });
    const stopText = new StopText(typeof stop === 'string' ? [stop] : stop);
    try {
      for await (const id of this.#ids(cache, maxTokens)) {
        const text = stopText.push(pieces?.push(id) ?? '');
        if (text !== '') yield text;
        if (!stopText.found) continue;
        this.finishReason = 'stop';
        return;
      }
      const rest = stopText.push(pieces?.end() ?? '') + stopText.end();
      if (rest !== '') yield rest;
    } finally {
      if (cache !== this.#given) cache.dispose();
    }
  }

  /** Tokens, one forward step each. */
  async *#ids(cache: DecoderCache, maxTokens: number): AsyncGenerator<number, void, undefined> {
    const { decoder, tokens, promptTokens } = this;
    const { signal } = this.options;
    const logits = Tensor.zeros('f32', [decoder.config.vocabSize]);
    const step = { cache, out: logits, ...(signal === undefined ? {} : { signal }) };
    const stopTokens = new Set(this.options.stopTokens ?? defaultStopTokens(decoder));
    let begin = process.hrtime.bigint();
    if (maxTokens > 0) await decoder.forwardAsync(promptTokens, step);
    this.#promptSeconds = seconds(begin);
    while (tokens.length < maxTokens) {
      begin = process.hrtime.bigint();
      const id = this.#sample(logits);
      if (stopTokens.has(id)) {
        this.finishReason = 'stop';
        return;
      }
      tokens.push(id);
      this.#decodeSeconds += seconds(begin);
      yield id;
      if (tokens.length >= maxTokens) break;
      if (cache.length >= cache.capacity) {
        this.finishReason = 'context';
        return;
      }
      begin = process.hrtime.bigint();
      await decoder.forwardAsync([id], step);
      this.#decodeSeconds += seconds(begin);
      this.#steps++;
    }
    this.finishReason = 'length';
  }

  #sample(logits: Tensor<'f32'>): number {
    const { temperature = 0, topK = 0, topP = 1, minP = 0, seed = 0 } = this.options;
    const { repetitionPenalty = 1 } = this.options;
    const { tokens, promptTokens } = this;
    const options = { temperature, topK, topP, minP, repetitionPenalty, seed };
    const position = promptTokens.length + tokens.length;
    if (repetitionPenalty === 1) return sample(logits, { ...options, position }).token;
    const own = tokens.slice(-penaltyWindow);
    const before = own.length < penaltyWindow ? promptTokens.slice(own.length - penaltyWindow) : [];
    const ids = Int32Array.from([...before, ...own]);
    const previous = new Tensor('i32', ids, [ids.length]);
    return sample(logits, { ...options, previous, position }).token;
  }

  /** The cache that the caller has given. */
  get #given(): DecoderCache | undefined {
    const { cache } = this.options;
    return cache !== undefined && 'acquire' in cache ? cache : undefined;
  }

  #capacity(): number {
    const { capacity } = this.options.cache ?? {};
    return capacity ?? this.decoder.contextLength;
  }

  #encode(prompt: string | readonly number[]): readonly number[] {
    if (typeof prompt !== 'string') return [...prompt];
    const { tokenizer } = this.decoder;
    if (tokenizer === undefined) {
      throw new BitloomError(
        'BL_NOT_FOUND',
        'generate: the model file has no tokenizer; pass token ids instead of text',
      );
    }
    const { special = false } = this.options;
    const cache = this.#given;
    // A text that goes on does not begin.
    const bos = cache !== undefined && cache.length > 0 ? { addBos: false } : {};
    return tokenizer.encode(prompt, { special, ...bos });
  }
}

/** Tokens that end a text or a turn; and the one that begins a text, for a model that goes on to the next one. */
function defaultStopTokens({ tokenizer }: Decoder): number[] {
  if (tokenizer === undefined) return [];
  const { eotIds, bosId } = tokenizer;
  return bosId === undefined ? [...eotIds] : [...eotIds, bosId];
}

function checkOptions(options: GenerateOptions): void {
  const { maxTokens, stop = [], cache } = options;
  if (cache !== undefined) checkObject('generate', 'cache', cache);
  if (maxTokens !== undefined && !(Number.isInteger(maxTokens) && maxTokens >= 0)) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `generate: maxTokens is ${maxTokens}, expected a whole number of at least 0`,
    );
  }
  const stops: unknown[] = typeof stop === 'string' ? [stop] : [...stop];
  if (!stops.every((text) => typeof text === 'string' && text !== '')) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      'generate: stop has an entry that is no text or empty',
    );
  }
}
