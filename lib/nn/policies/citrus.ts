import { described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import {
  checkPolicyOptions,
  latest,
  listOption,
  policy,
  smallWindowOf,
  wholeOption,
  type WindowOptions,
} from './parts.js';
import type { CachePolicy } from './policy.js';
import { bestAndNewest } from './selections.js';

/** Options of policies that decide by the attention of tokens that are no part of the text. */
export interface ProbeOptions extends WindowOptions {
  /** Tokens of the prompt computed at once, 1 to 256: the cache holds the budget, these and the probe at most. Default 256. */
  block?: number;
}

/** Options of {@link citrus}. */
export interface CitrusOptions extends ProbeOptions {
  /** Token ids of the instruction: what the text will be asked for. */
  instruction: readonly number[];
}

/**
 * CItruS (Bai et al. 2024, arXiv:2406.12018), with the shared cache: the text is read in chunks (`block`); after each, the instruction
 * is computed behind it, and its attention decides what stays: score = sum over the instruction's queries and the heads of a kv head of
 * their weights. The instruction itself is forgotten each time. The newest `window` tokens stay as well (default 8, budget / 4 at most), since
 * the next chunk goes on from them.
 *
 * While a text is generated, the newest query's weights decide. The paper's individual cache, a second one for the instruction alone
 * beside that for the chunks, is not there.
 *
 * @param options `budget`, `instruction`; `window` (default 8, budget / 4 at most), `block` (256)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, or an `instruction` that is no list of token ids,
 *   `BL_OUT_OF_RANGE` for a `budget` below 2, a `window` that is not 1 to `budget - 1` or a `block` below 1; the model's own
 *   error for ids beyond its vocabulary, once they are computed
 *
 * @example
 * ```ts
 * import { citrus, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const question = decoder.tokenizer?.encode('Who was at the door?', { addBos: false }) ?? [];
 * const cache = { policy: citrus({ budget: 512, instruction: question }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function citrus(options: CitrusOptions): CachePolicy {
  const name = 'citrus';
  checkPolicyOptions(name, options, 'window', 'block', 'instruction');
  const { budget, instruction } = options;
  const window = smallWindowOf(name, options);
  return policy({
    name,
    budget,
    ...probeOf(name, 'instruction', instruction, options.block),
    sums: ['sums'],
    observes: (count) => (count === 1 ? 1 : 0),
    score: latest,
    select: (view, count) => bestAndNewest(view, count, window),
  });
}

/** Checked probe and block of a policy. */
export function probeOf(
  name: string,
  option: string,
  tokens: readonly number[],
  block = 256,
): { probe: readonly number[]; block: number } {
  listOption(name, option, tokens);
  if (tokens.length === 0) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${name}: ${option} is empty, expected token ids, at least one`,
    );
  }
  for (const [i, id] of tokens.entries()) {
    if (Number.isInteger(id) && id >= 0) continue;
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${name}: ${option}[${i}] is ${described(id)}, expected a token id`,
    );
  }
  wholeOption(name, 'block', block, 1);
  return { probe: [...tokens], block: Math.min(block, 256) };
}
