import { type ProbeOptions, probeOf } from './citrus.js';
import {
  checkPolicyOptions,
  listOption,
  perCache,
  policy,
  range,
  smallWindowOf,
  wholeOption,
} from './parts.js';
import type { CachePolicy, LayerView } from './policy.js';
import { headSums, topIndices } from './scores.js';
import { sameForAll } from './selections.js';

/** Options of {@link infiniRetri}. */
export interface InfiniRetriOptions extends ProbeOptions {
  /** Token ids of the question. */
  question: readonly number[];
  /** Neighbours (each way together, with the key itself) that a phrase's score is summed over. Default 9. */
  phrase?: number;
  /** Where sentences begin in the text, rising. Default: every 16 tokens. */
  sentences?: readonly number[];
  /** The layer that decides. Default: the last. */
  layer?: number;
}

/**
 * InfiniRetri's choice (Ye et al. 2025, arXiv:2502.12962) for keys of a cache: the text is read in blocks; after each, the question is
 * computed behind it, and one layer's attention decides for all. Score of a key = sum over heads and the question's queries of its weight,
 * summed over a phrase of neighbours (a convolution with ones). Whole sentences stay, those of the best keys first, until
 * the budget is full; the newest `window` tokens stay as well.
 *
 * The paper keeps the token ids of those sentences, and computes them anew before the next block, so that the model's own context is
 * never exceeded. A cache keeps keys and values where they stood, which costs less; nothing is computed again.
 *
 * @param options `budget`, `question`; `window` (default 8, budget / 4 at most), `block` (256), `phrase` (9), `sentences` (every 16 tokens),
 *   `layer` (the last)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, a `question` that is no list of token ids or `sentences` that
 *   are no list, `BL_OUT_OF_RANGE` for a `budget` below 2, a `window` that is not 1 to `budget - 1`, a `block` or `phrase` below 1, a
 *   `layer` below 0 or sentences that do not rise
 *
 * @example
 * ```ts
 * import { infiniRetri, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const question = decoder.tokenizer?.encode('Who was at the door?', { addBos: false }) ?? [];
 * const cache = { policy: infiniRetri({ budget: 512, question }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function infiniRetri(options: InfiniRetriOptions): CachePolicy {
  const name = 'infiniRetri';
  const own = ['question', 'phrase', 'sentences', 'layer'] as const;
  checkPolicyOptions(name, options, 'window', 'block', ...own);
  const { budget, question, sentences } = options;
  const window = smallWindowOf(name, options);
  const decides = wholeOption(name, 'layer', options.layer ?? Number.MAX_SAFE_INTEGER, 0);
  for (const [i, begin] of listOption(name, 'sentences', sentences ?? []).entries()) {
    wholeOption(name, `sentences[${i}]`, begin, i === 0 ? 0 : (sentences?.[i - 1] as number));
  }
  const phrase = wholeOption(name, 'phrase', options.phrase ?? 9, 1);
  type Memory = {
    deciding?: Float32Array;
    chosen?: { keys: number; count: number; kept: Int32Array } | undefined;
  };
  const memory = perCache((): Memory => ({}));
  return policy({
    name,
    budget,
    ...probeOf(name, 'question', question, options.block),
    sums: ['sums'],
    observes: (count) => (count === 1 ? 1 : 0),
    score: (before, observation, { layer, numLayers, cache }) => {
      if (observation === undefined) return [...before];
      if (layer === Math.min(decides, numLayers - 1)) {
        const deciding = phraseSums(headSums(observation), phrase);
        Object.assign(memory({ cache }), { deciding, chosen: undefined });
      }
      return [...before];
    },
    select: (view, count) => {
      const known = memory(view);
      const { keys } = view;
      if (known.chosen?.keys !== keys || known.chosen.count !== count) {
        const scores = known.deciding ?? new Float32Array(keys);
        known.chosen = { keys, count, kept: bestSentences(view, scores, count, window, sentences) };
      }
      return sameForAll(view, known.chosen.kept);
    },
  });
}

/** Sum over `size` neighbours around each key. */
export function phraseSums(scores: Float32Array, size: number): Float32Array {
  const before = (size - 1) >> 1;
  return scores.map((_, s) => {
    let sum = 0;
    const end = Math.min(scores.length, s - before + size);
    for (let i = Math.max(0, s - before); i < end; i++) sum += scores[i] as number;
    return sum;
  });
}

/** Number of the sentence that a position is in. */
function sentenceOf(position: number, sentences: readonly number[] | undefined): number {
  if (sentences === undefined) return Math.floor(position / 16);
  let low = 0;
  let high = sentences.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sentences[middle] as number) <= position) low = middle + 1;
    else high = middle;
  }
  return low;
}

function bestSentences(
  { keys, positions }: LayerView,
  scores: Float32Array,
  count: number,
  window: number,
  sentences: readonly number[] | undefined,
): Int32Array {
  const newest = Math.min(window, count);
  const older = keys - newest;
  const places = positions[0] as Int32Array;
  const rows = new Map<number, number[]>();
  const best = new Map<number, number>();
  for (let s = 0; s < older; s++) {
    const sentence = sentenceOf(places[s] as number, sentences);
    const list = rows.get(sentence) ?? [];
    list.push(s);
    rows.set(sentence, list);
    best.set(sentence, Math.max(best.get(sentence) ?? -1, scores[s] as number));
  }
  const names = [...rows.keys()];
  const order = names.sort((a, b) => (best.get(b) as number) - (best.get(a) as number) || a - b);
  const kept: number[] = [];
  for (const sentence of order) {
    const room = count - newest - kept.length;
    if (room <= 0) break;
    const list = rows.get(sentence) as number[];
    // Of the last one, the best part.
    const part = Float32Array.from(list, (s) => scores[s] as number);
    kept.push(...topIndices(part, Math.min(room, list.length)).map((i) => list[i] as number));
  }
  return Int32Array.from([...kept.sort((a, b) => a - b), ...range(older, keys)]);
}
