import { invalid } from '../errors.js';
import type { TokenizerModel } from './tokenizer_model.js';
import {
  TOKEN_BYTE,
  TOKEN_CONTROL,
  TOKEN_NORMAL,
  TOKEN_UNKNOWN,
  TOKEN_USER_DEFINED,
  type Vocabulary,
} from './tokenizer_vocabulary.js';

const SPACE = 0x20;
const NOTHING = new Uint8Array(0);

/** Turns tokens into text one at a time, holding back the bytes of a character until it is complete. */
export class TokenDecoder {
  // A byte order mark in the middle of a text is text.
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  #atStart = true;

  constructor(
    private readonly vocabulary: Vocabulary,
    private readonly model: TokenizerModel,
    private readonly special: boolean,
  ) {}

  push(id: number): string {
    let bytes = this.#bytes(id);
    if (this.#atStart && bytes.length > 0) {
      const kind = this.vocabulary.kinds[id];
      const isText = kind !== TOKEN_CONTROL && kind !== TOKEN_UNKNOWN;
      if (isText && this.model.spacePrefix && bytes[0] === SPACE) bytes = bytes.subarray(1);
      if (isText) this.#atStart = false;
    }
    return this.#utf8.decode(bytes, { stream: true });
  }

  end(): string {
    this.#atStart = true;
    return this.#utf8.decode();
  }

  #bytes(id: number): Uint8Array {
    switch (this.vocabulary.kinds[id]) {
      case TOKEN_NORMAL:
      case TOKEN_USER_DEFINED:
      case TOKEN_BYTE:
        return this.model.bytes(id);
      case TOKEN_CONTROL:
      case TOKEN_UNKNOWN:
        return this.special ? Buffer.from(this.vocabulary.tokens[id] as string) : NOTHING;
      case undefined:
        throw invalid(
          'BL_OUT_OF_RANGE',
          `decode: id is ${id}, expected a whole number from 0 to ${this.vocabulary.tokens.length - 1}`,
        );
      default:
        return NOTHING; // unused tokens, and kinds that are not known
    }
  }
}
