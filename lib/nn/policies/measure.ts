// What some policies want to know of a model beforehand.
import { checkOptions } from '../../arguments.js';
import type { Decoder } from '../decoder.js';
import { checkedRange, listOption, type PositionRange, policy, wholeOption } from './parts.js';
import { snapKV } from './policies.js';
import type { CachePolicy } from './policy.js';
import { cosine } from './scores.js';

/** Options of {@link retrievalHeads}. */
export interface RetrievalHeadsOptions {
  /** Where the needle stands in the tokens. */
  needle: PositionRange;
  /** Where the answer stands that repeats it, behind. */
  answer: PositionRange;
  /** Heads of each layer. Default 4, or as many as it has. */
  perLayer?: number;
}

/**
 * Semantic retrieval heads as CompressKV identifies them (Lin et al. 2025): of each layer, those whose queries give the needle the most
 * weight, over all its keys, while the answer is said. Average several texts by calling it for each.
 *
 * @param tokens a text with a needle, a question, and the answer
 * @param options `needle`, `answer`; `perLayer` (default 4)
 * @returns heads of each layer, best first, for {@link compressKV}; and the scores of all, [layers][numHeads]
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for ranges that are empty or not in the
 *   tokens, an answer before the needle's end or a `perLayer` below 1
 *
 * @example
 * ```ts
 * import { compressKV, load, retrievalHeads } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const text = 'Tim had a red cup. It was a nice day. Tim had a red cup.';
 * const tokens = decoder.tokenizer?.encode(text, { addBos: false }) ?? [];
 * const length = decoder.tokenizer?.encode('Tim had a red cup.', { addBos: false }).length ?? 0;
 * const { heads } = await retrievalHeads(decoder, tokens, {
 *   needle: [0, length],
 *   answer: [tokens.length - length, tokens.length],
 * });
 * const cache = { policy: compressKV({ budget: 512, heads }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export async function retrievalHeads(
  decoder: Decoder,
  tokens: readonly number[],
  options: RetrievalHeadsOptions,
): Promise<{ heads: number[][]; scores: Float64Array[] }> {
  const name = 'retrievalHeads';
  checkOptions(name, options, new Set(['needle', 'answer', 'perLayer']));
  listOption(name, 'tokens', tokens);
  const [needleBegin, needleEnd] = checkedRange(name, 'needle', options.needle, 0, tokens.length);
  const [answerBegin, answerEnd] = checkedRange(
    name,
    'answer',
    options.answer,
    needleEnd,
    tokens.length,
  );
  const { numHeads } = decoder.config;
  const count = Math.min(wholeOption(name, 'perLayer', options.perLayer ?? 4, 1), numHeads);
  const layers = decoder.parts.layers.length;
  const scores = Array.from({ length: layers }, () => new Float64Array(numHeads));
  // The query of a token gives the next one: those from the token before the answer on say it.
  let isSaid = false;
  const spy = policy({
    name,
    budget: tokens.length,
    sums: ['sums'],
    observes: (step) => (isSaid ? step : 0),
    score: (before, observation, { layer }) => {
      const { sums, keys = 0 } = observation ?? {};
      for (let head = 0; sums !== undefined && head < numHeads; head++) {
        const sum = scores[layer] as Float64Array;
        for (let s = needleBegin; s < needleEnd; s++) {
          sum[head] = (sum[head] as number) + (sums[head * keys + s] as number);
        }
      }
      return [...before];
    },
    select: () => [],
  });
  const cache = decoder.createPagedCache({ format: 'f32', policy: spy });
  try {
    const before = tokens.slice(0, answerBegin - 1);
    if (before.length > 0) await decoder.forwardAsync(before, { cache });
    isSaid = true;
    await decoder.forwardAsync(tokens.slice(answerBegin - 1, answerEnd - 1), { cache });
  } finally {
    cache.dispose();
  }
  const heads = scores.map((list) =>
    [...list.keys()]
      .sort((a, b) => (list[b] as number) - (list[a] as number) || a - b)
      .slice(0, count),
  );
  return { heads, scores };
}

/** Options of {@link keySimilarity}. */
export interface KeySimilarityOptions {
  /** Keys that stay of each layer. */
  budget: number;
  /** Tokens of a block. Default 64. */
  block?: number;
  /** What evicts. Default: snapKV. */
  policy?: CachePolicy;
}

/**
 * How much the keys of each layer change when a text is read in blocks with eviction, as EpiCache measures it (Kim et al. 2025): the mean
 * cosine of the keys that stay and of those of the same tokens with a whole cache, for {@link epiCache}.
 *
 * @param options `budget`; `block` (default 64), `policy` (snapKV with this budget)
 * @returns by layer; 1: they do not change (the first layer's never do)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for a `budget` below 2, a `block`
 *   below 1 or tokens beyond the decoder's context
 *
 * @example
 * ```ts
 * import { epiCache, keySimilarity, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const text = decoder.tokenizer?.encode('A cat and a dog went to the sea. They saw a red ball in the water.') ?? [];
 * const similarity = await keySimilarity(decoder, text, { budget: 8, block: 8 });
 * const cache = { policy: epiCache({ budget: 512, patch: text.slice(1, 6), similarity }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export async function keySimilarity(
  decoder: Decoder,
  tokens: readonly number[],
  options: KeySimilarityOptions,
): Promise<number[]> {
  checkOptions('keySimilarity', options, new Set(['budget', 'block', 'policy']));
  listOption('keySimilarity', 'tokens', tokens);
  const { budget, block = 64, policy: evicting = snapKV({ budget }) } = options;
  const whole = decoder.createPagedCache({ format: 'f32' });
  const evicted = decoder.createPagedCache({ format: 'f32', policy: { ...evicting, block } });
  try {
    await decoder.forwardAsync(tokens, { cache: whole });
    await decoder.forwardAsync(tokens, { cache: evicted });
    return decoder.parts.layers.map((_, layer) => {
      const all = whole.read(layer).keys;
      const { keys, positions } = evicted.read(layer);
      const [count = 0, heads = 1, dim = 0] = keys.shape;
      let sum = 0;
      for (let t = 0; t < count; t++) {
        for (let head = 0; head < heads; head++) {
          const place = positions[head]?.[t] as number;
          sum += cosine(
            keys.data.subarray((t * heads + head) * dim, (t * heads + head + 1) * dim),
            all.data.subarray((place * heads + head) * dim, (place * heads + head + 1) * dim),
          );
        }
      }
      return Math.min(1, sum / (count * heads));
    });
  } finally {
    whole.dispose();
    evicted.dispose();
  }
}
