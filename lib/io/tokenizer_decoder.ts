import { argumentError } from '../errors.js';
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

/** The bytes that tokens stand for, worked out once for each token. */
export class TokenBytes {
  readonly #known: (Uint8Array | undefined)[] = [];

  constructor(
    private readonly vocabulary: Vocabulary,
    private readonly model: TokenizerModel,
  ) {}

  /** @param special Whether control tokens give their text rather than nothing. */
  of(id: number, special: boolean): Uint8Array {
    const { tokens, kinds } = this.vocabulary;
    if (!Number.isInteger(id) || id < 0 || id >= tokens.length) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `decode: id is ${String(id)}, expected a whole number from 0 to ${tokens.length - 1}`,
      );
    }
    switch (kinds[id]) {
      case TOKEN_NORMAL:
      case TOKEN_USER_DEFINED:
      case TOKEN_BYTE: {
        const bytes = this.#known[id] ?? this.model.bytes(id);
        this.#known[id] = bytes;
        return bytes;
      }
      case TOKEN_CONTROL:
      case TOKEN_UNKNOWN:
        return special ? Buffer.from(tokens[id] as string) : NOTHING;
      default:
        return NOTHING; // unused tokens, and kinds that are not known
    }
  }

  /** Whether a token is a mark rather than text. */
  isMark(id: number): boolean {
    const kind = this.vocabulary.kinds[id];
    return kind === TOKEN_CONTROL || kind === TOKEN_UNKNOWN;
  }
}

/** Turns tokens into text one at a time, holding back the bytes of a character until it is complete. */
export class TokenDecoder {
  // A byte order mark in the middle of a text is text.
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  #atStart = true;

  /** @param spacePrefix Whether the first text begins with a space that is not its own. */
  constructor(
    private readonly tokens: TokenBytes,
    private readonly spacePrefix: boolean,
    private readonly special: boolean,
  ) {}

  push(id: number): string {
    return this.#utf8.decode(this.#bytes(id), { stream: true });
  }

  end(): string {
    this.#atStart = true;
    return this.#utf8.decode();
  }

  /** The text of all of these tokens at once, and an end. */
  all(ids: Iterable<number>): string {
    return this.#utf8.decode(Buffer.concat(Array.from(ids, (id) => this.#bytes(id))));
  }

  #bytes(id: number): Uint8Array {
    const bytes = this.tokens.of(id, this.special);
    if (!this.#atStart || bytes.length === 0 || this.tokens.isMark(id)) return bytes;
    this.#atStart = false;
    return this.spacePrefix && bytes[0] === SPACE ? bytes.subarray(1) : bytes;
  }
}
