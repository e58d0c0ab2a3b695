import { BitloomError } from '../errors.js';
import { quote } from './cursor.js';
import { Merger } from './tokenizer_merge.js';
import type { TokenizerModel } from './tokenizer_model.js';
import {
  fail,
  flag,
  type GGUFMetadata,
  perToken,
  TOKEN_BYTE,
  TOKEN_CONTROL,
  TOKEN_UNKNOWN,
  TOKEN_USER_DEFINED,
  type Vocabulary,
} from './tokenizer_vocabulary.js';

const SPACE = '▁';

/**
 * SentencePiece's BPE, as Llama 1 and 2, Mistral, Gemma 1 to 3 and TinyLlama use it: neighbours are joined when their
 * joint text is a token, highest score first; characters without a token become their UTF-8 bytes.
 */
export class SentencePieceModel implements TokenizerModel {
  readonly addBos = true;
  readonly spacePrefix: boolean;
  readonly #vocabulary: Vocabulary;
  readonly #scores: readonly number[];
  /** Token of each byte, -1 where there is none. */
  readonly #byteIds = new Int32Array(256).fill(-1);
  /** Byte of each byte token. */
  readonly #byteValues = new Map<number, number>();
  readonly #merger = new Merger();
  readonly #utf8 = new TextEncoder();

  constructor(metadata: GGUFMetadata, vocabulary: Vocabulary) {
    this.#vocabulary = vocabulary;
    this.spacePrefix = flag(metadata, 'tokenizer.ggml.add_space_prefix', true);
    this.#scores = perToken(metadata, 'tokenizer.ggml.scores', vocabulary.tokens.length, 0);
    for (const [id, text] of vocabulary.tokens.entries()) {
      if (vocabulary.kinds[id] !== TOKEN_BYTE) continue;
      const hex = /^<0x([0-9A-Fa-f]{2})>$/.exec(text)?.[1];
      if (hex === undefined) fail(`byte token ${id} is ${quote(text)}, expected <0x00> to <0xFF>`);
      const byte = Number.parseInt(hex, 16);
      this.#byteIds[byte] = id;
      this.#byteValues.set(id, byte);
    }
  }

  encode(text: string, out: number[]): void {
    const escaped = text.replaceAll(' ', SPACE);
    this.#merger.merge(
      escaped,
      (start, _, end) => {
        const id = this.#find(escaped, start, end);
        return id === undefined ? undefined : this.#scores[id];
      },
      (start, end) => {
        const id = this.#find(escaped, start, end);
        if (id !== undefined) out.push(id);
        else this.#encodeBytes(escaped.slice(start, end), out);
      },
    );
  }

  bytes(id: number): Uint8Array {
    const byte = this.#byteValues.get(id);
    if (byte !== undefined) return Uint8Array.of(byte);
    const text = this.#vocabulary.tokens[id] as string;
    const isPlain = this.#vocabulary.kinds[id] === TOKEN_USER_DEFINED; // holds spaces as spaces
    return this.#utf8.encode(isPlain ? text : text.replaceAll(SPACE, ' '));
  }

  /** The token with a text, unless text never becomes it: control tokens and byte tokens are no text. */
  #find(text: string, start: number, end: number): number | undefined {
    if (end - start > this.#vocabulary.maxLength) return undefined;
    const id = this.#vocabulary.ids.get(text.slice(start, end));
    if (id === undefined) return undefined;
    const kind = this.#vocabulary.kinds[id];
    return kind === TOKEN_CONTROL || kind === TOKEN_UNKNOWN || kind === TOKEN_BYTE ? undefined : id;
  }

  #encodeBytes(character: string, out: number[]): void {
    const bytes = this.#utf8.encode(character);
    const ids = [...bytes].map((byte) => this.#byteIds[byte] as number);
    if (ids.every((id) => id >= 0)) {
      out.push(...ids);
    } else if (this.#vocabulary.unknownId !== undefined) {
      // Half a character in bytes would come back as garbage; one unknown token stands for all of it.
      out.push(this.#vocabulary.unknownId);
    } else {
      throw new BitloomError(
        'BL_UNSUPPORTED',
        `encode: the vocabulary has no tokens for ${quote(character)}, its bytes, or unknown text`,
      );
    }
  }
}
