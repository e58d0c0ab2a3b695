import {
  TOKEN_CONTROL,
  TOKEN_UNKNOWN,
  TOKEN_USER_DEFINED,
  type Vocabulary,
} from './tokenizer_vocabulary.js';

/** A piece of a prompt: text, or a token that stood in it as such. */
export type Fragment = { readonly text: string } | { readonly id: number };

interface Found {
  readonly id: number;
  readonly start: number;
  readonly end: number;
}

/**
 * Finds tokens that are written out in a text: user-defined ones always, control ones (`<|im_end|>`) on request.
 * Where two overlap, the longer one counts, as in llama.cpp; of two equally long ones the left one.
 */
export class SpecialTokens {
  /** Lengths of the tokens that begin with a code unit, so that most places of a text cost one look-up. */
  readonly #lengths = new Map<number, number[]>();
  readonly #ids = new Map<string, number>();
  readonly #vocabulary: Vocabulary;

  constructor(vocabulary: Vocabulary) {
    this.#vocabulary = vocabulary;
    for (const [id, text] of vocabulary.tokens.entries()) {
      const kind = vocabulary.kinds[id];
      if (kind !== TOKEN_CONTROL && kind !== TOKEN_UNKNOWN && kind !== TOKEN_USER_DEFINED) continue;
      const first = text.charCodeAt(0);
      const lengths = this.#lengths.get(first);
      if (lengths === undefined) this.#lengths.set(first, [text.length]);
      else if (!lengths.includes(text.length)) lengths.push(text.length);
      this.#ids.set(text, id);
    }
  }

  /** @param control Whether control tokens count too. */
  split(text: string, control: boolean): Fragment[] {
    const fragments: Fragment[] = [];
    let at = 0;
    for (const { id, start, end } of this.#choose(this.#find(text, control), text.length)) {
      if (start > at) fragments.push({ text: text.slice(at, start) });
      fragments.push({ id });
      at = end;
    }
    if (at < text.length) fragments.push({ text: text.slice(at) });
    return fragments;
  }

  #find(text: string, control: boolean): Found[] {
    const found: Found[] = [];
    if (this.#ids.size === 0) return found;
    for (let start = 0; start < text.length; start++) {
      const lengths = this.#lengths.get(text.charCodeAt(start));
      if (lengths === undefined) continue;
      for (const length of lengths) {
        const id = this.#ids.get(text.slice(start, start + length));
        if (id === undefined || start + length > text.length) continue;
        if (!control && this.#vocabulary.kinds[id] !== TOKEN_USER_DEFINED) continue;
        found.push({ id, start, end: start + length });
      }
    }
    return found;
  }

  /** Those that stay when overlaps are settled, in the order of the text. */
  #choose(found: Found[], length: number): Found[] {
    if (found.length === 0) return found;
    found.sort((a, b) => b.end - b.start - (a.end - a.start) || a.start - b.start);
    const taken = new Uint8Array(length); // 1 for code units inside a chosen token
    const chosen: Found[] = [];
    for (const one of found) {
      // No chosen token is shorter, so an overlap covers the first or the last code unit.
      if (taken[one.start] || taken[one.end - 1]) continue;
      taken.fill(1, one.start, one.end);
      chosen.push(one);
    }
    return chosen.sort((a, b) => a.start - b.start);
  }
}
