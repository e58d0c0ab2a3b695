import { BitloomError } from '../errors.js';
import { quote } from './cursor.js';
import { Merger } from './tokenizer_merge.js';
import type { TokenizerModel } from './tokenizer_model.js';
import { PRE_TOKENIZERS, type PreTokenizer, preTokenizer, splitWords } from './tokenizer_pre.js';
import {
  fail,
  type GGUFMetadata,
  list,
  TOKEN_CONTROL,
  TOKEN_UNKNOWN,
  TOKEN_USER_DEFINED,
  text as textOf,
  type Vocabulary,
} from './tokenizer_vocabulary.js';

// Words repeat: 2^14 of them cover nearly all of a long prompt. Longer substrings than 12 code units are references to
// the whole text in V8, which a cache must not keep alive.
const CACHE_WORDS = 2 ** 14;
const CACHE_WORD_LENGTH = 12;

/**
 * The characters that stand for bytes in byte-level vocabularies: printable Latin-1 characters stand for themselves,
 * the other 68 bytes are the characters from U+0100, in order (GPT-2's `bytes_to_unicode`).
 */
const BYTE_TO_CHAR: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : next++);
  });
})();
const CHAR_TO_BYTE: ReadonlyMap<string, number> = new Map(
  BYTE_TO_CHAR.map((char, byte) => [char, byte]),
);

/**
 * Byte-level BPE, as GPT-2, Llama 3 and Qwen 2 use it: text is cut into words, a word becomes bytes, and neighbours are
 * joined in the order of the list of merges.
 */
export class ByteLevelModel implements TokenizerModel {
  readonly spacePrefix = false;
  readonly addBos: boolean;
  readonly #vocabulary: Vocabulary;
  readonly #pre: PreTokenizer;
  /** Place of each merge, by its two halves with a space between them; vocabularies never hold a space. */
  readonly #ranks = new Map<string, number>();
  readonly #cache = new Map<string, readonly number[]>();
  readonly #merger = new Merger();
  readonly #utf8 = new TextEncoder();

  constructor(metadata: GGUFMetadata, vocabulary: Vocabulary) {
    this.#vocabulary = vocabulary;
    const name = textOf(metadata, 'tokenizer.ggml.pre') ?? 'default';
    const pre = preTokenizer(name);
    if (pre === undefined) {
      const known = PRE_TOKENIZERS.join(', ');
      fail(`tokenizer.ggml.pre is ${quote(name)}, expected one of ${known}`, 'BL_UNSUPPORTED');
    }
    this.#pre = pre;
    this.addBos = pre.addBos;
    const merges = list(metadata, 'tokenizer.ggml.merges', 'string');
    if (merges === undefined) fail('tokenizer.ggml.merges is missing', 'BL_NOT_FOUND');
    for (const [rank, merge] of merges.entries()) {
      const space = merge.indexOf(' ', 1);
      if (space < 0 || space === merge.length - 1 || merge.includes(' ', space + 1)) {
        fail(`tokenizer.ggml.merges[${rank}] is ${quote(merge)}, expected two texts and a space`);
      }
      if (!this.#ranks.has(merge)) this.#ranks.set(merge, rank);
    }
  }

  encode(text: string, out: number[]): void {
    for (const word of splitWords(text, this.#pre.patterns)) {
      const known = this.#cache.get(word);
      if (known !== undefined) {
        for (const id of known) out.push(id);
        continue;
      }
      const begin = out.length;
      this.#encodeWord(this.#toChars(word), out);
      if (word.length <= CACHE_WORD_LENGTH) {
        if (this.#cache.size >= CACHE_WORDS) this.#cache.clear();
        this.#cache.set(word, out.slice(begin));
      }
    }
  }

  bytes(id: number): Uint8Array {
    const text = this.#vocabulary.tokens[id] as string;
    if (this.#vocabulary.kinds[id] === TOKEN_USER_DEFINED) return this.#utf8.encode(text);
    const bytes: number[] = [];
    for (const char of text) {
      const byte = CHAR_TO_BYTE.get(char);
      if (byte !== undefined) bytes.push(byte);
      else bytes.push(...this.#utf8.encode(char)); // no byte: a token added as plain text
    }
    return Uint8Array.from(bytes);
  }

  #toChars(word: string): string {
    let chars = '';
    for (const byte of this.#utf8.encode(word)) chars += BYTE_TO_CHAR[byte];
    return chars;
  }

  #encodeWord(word: string, out: number[]): void {
    if (this.#pre.ignoreMerges) {
      const id = this.#find(word);
      if (id !== undefined) {
        out.push(id);
        return;
      }
    }
    const { maxLength } = this.#vocabulary;
    this.#merger.merge(
      word,
      (start, middle, end) => {
        if (end - start > maxLength) return undefined;
        const rank = this.#ranks.get(`${word.slice(start, middle)} ${word.slice(middle, end)}`);
        return rank === undefined ? undefined : -rank;
      },
      (start, end) => this.#emit(word.slice(start, end), out),
    );
  }

  #emit(symbol: string, out: number[]): void {
    const id = this.#find(symbol);
    if (id !== undefined) {
      out.push(id);
      return;
    }
    // A merge may lead to a text that is no token; its bytes are the next best thing.
    for (const char of symbol) {
      const byteId = this.#find(char) ?? this.#vocabulary.unknownId;
      if (byteId === undefined) {
        const byte = (CHAR_TO_BYTE.get(char) as number).toString(16).padStart(2, '0');
        throw new BitloomError(
          'BL_UNSUPPORTED',
          `encode: the vocabulary has no token for byte 0x${byte} or for unknown text`,
        );
      }
      out.push(byteId);
    }
  }

  #find(text: string): number | undefined {
    const id = this.#vocabulary.ids.get(text);
    if (id === undefined) return undefined;
    const kind = this.#vocabulary.kinds[id];
    return kind === TOKEN_CONTROL || kind === TOKEN_UNKNOWN ? undefined : id;
  }
}
