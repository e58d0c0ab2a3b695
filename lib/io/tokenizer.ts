import { argumentError } from '../errors.js';
import { quote } from './cursor.js';
import type { GGUFFile } from './gguf.js';
import { ByteLevelModel } from './tokenizer_bpe.js';
import { TokenBytes, TokenDecoder } from './tokenizer_decoder.js';
import type { TokenizerModel } from './tokenizer_model.js';
import { SpecialTokens } from './tokenizer_special.js';
import { SentencePieceModel } from './tokenizer_spm.js';
import {
  fail,
  flag,
  readVocabulary,
  text as textOf,
  type Vocabulary,
} from './tokenizer_vocabulary.js';

// No model takes prompts of 16 million characters; the bound keeps the buffers of one call under 1.5 GB.
const MAX_TEXT = 2 ** 24;

/** Options of {@link Tokenizer.encode}. */
export interface EncodeOptions {
  /** Whether to begin with BOS; as the file says (`tokenizer.ggml.add_bos_token`) if left out. */
  readonly addBos?: boolean;
  /**
   * Whether control tokens written out in the text (`<|im_end|>`) become those tokens. Leave it off for text of other
   * people, or they can end their turn and begin yours. Default false.
   */
  readonly special?: boolean;
}

/** Options of {@link Tokenizer.decode} and {@link Tokenizer.createDecoder}. */
export interface DecodeOptions {
  /** Whether control tokens show, as `<|im_end|>`, rather than give nothing. Default false. */
  readonly special?: boolean;
}

/** Options of {@link Tokenizer.createDecoder}. */
export interface DecoderOptions extends DecodeOptions {
  /**
   * Tokens that were decoded already, such as the prompt: the decoder goes on after them, so that the space in front
   * of the first new word is kept.
   */
  readonly after?: Iterable<number>;
}

/** Gives text token by token; see {@link Tokenizer.createDecoder}. */
export interface Decoder {
  /** Text that is certain after this token; bytes of an unfinished character wait for the next one. */
  push(id: number): string;
  /** What still waits: an unfinished character gives U+FFFD. The decoder begins anew after it. */
  end(): string;
}

/**
 * Text to tokens and back, as the model was trained with. Made by {@link tokenizerFromGGUF}.
 */
export class Tokenizer {
  /** Number of tokens; ids are 0 to `vocabSize - 1`. */
  readonly vocabSize: number;
  /** Token that begins a text, if the model has one. */
  readonly bosId: number | undefined;
  /** Token that ends a text, if the model has one. */
  readonly eosId: number | undefined;
  /** Tokens after which generation should stop, in rising order; `eosId` is among them. */
  readonly eotIds: readonly number[];
  /** Whether {@link encode} begins with BOS unless told otherwise. */
  readonly addBos: boolean;
  readonly #vocabulary: Vocabulary;
  readonly #model: TokenizerModel;
  readonly #special: SpecialTokens;
  readonly #bytes: TokenBytes;

  /** @internal */
  constructor(vocabulary: Vocabulary, model: TokenizerModel, addBos: boolean) {
    this.vocabSize = vocabulary.tokens.length;
    this.bosId = vocabulary.bosId;
    this.eosId = vocabulary.eosId;
    this.eotIds = vocabulary.eotIds;
    this.addBos = addBos && vocabulary.bosId !== undefined;
    this.#vocabulary = vocabulary;
    this.#model = model;
    this.#special = new SpecialTokens(vocabulary);
    this.#bytes = new TokenBytes(vocabulary, model);
  }

  /**
   * Tokens of a text. The time is near linear in its length, whatever it holds.
   *
   * @throws TypeError `BL_INVALID_ARGUMENT` for text with a lone surrogate, RangeError `BL_OUT_OF_RANGE` for more than
   * 2^24 code units, BitloomError `BL_UNSUPPORTED` if the vocabulary has no way to write a character.
   *
   * @example
   * tokenizer.encode('Once upon a time'); // [1, 403, 407, 261, 378] with the tokens of stories260K
   */
  encode(text: string, options: EncodeOptions = {}): number[] {
    checkText(text);
    const { addBos = this.addBos, special = false } = options;
    const ids: number[] = [];
    if (addBos) {
      if (this.bosId === undefined) {
        throw argumentError(
          'BL_INVALID_ARGUMENT',
          'encode: addBos is true, but the model has no BOS',
        );
      }
      ids.push(this.bosId);
    }
    let prefix = this.#model.spacePrefix ? ' ' : '';
    for (const fragment of this.#special.split(text, special)) {
      if ('id' in fragment) {
        ids.push(fragment.id);
        prefix = this.#model.spacePrefix ? ' ' : '';
      } else {
        this.#model.encode(prefix + fragment.text, ids);
        prefix = '';
      }
    }
    return ids;
  }

  /**
   * Text of tokens. The space that {@link encode} puts in front of a text is taken away; bytes that are no UTF-8 give
   * U+FFFD.
   *
   * @throws RangeError `BL_OUT_OF_RANGE` for an id outside the vocabulary.
   */
  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    return this.#decoder(options.special ?? false).all(ids);
  }

  /**
   * A decoder for tokens that come one at a time. The texts it gives, put together, are what {@link decode} gives.
   *
   * @example
   * const decoder = tokenizer.createDecoder({ after: promptIds });
   * for await (const id of generate(promptIds)) process.stdout.write(decoder.push(id));
   * process.stdout.write(decoder.end());
   */
  createDecoder(options: DecoderOptions = {}): Decoder {
    const { special = false, after = [] } = options;
    const decoder = this.#decoder(special);
    for (const id of after) decoder.push(id);
    return decoder;
  }

  #decoder(special: boolean): TokenDecoder {
    return new TokenDecoder(this.#bytes, this.#model.spacePrefix, special);
  }

  /** A token as it stands in the vocabulary: `▁time`, `<0x0A>`, `Ġtime`. */
  tokenText(id: number): string {
    const text = this.#vocabulary.tokens[id];
    if (!Number.isInteger(id) || text === undefined) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `tokenText: id is ${String(id)}, expected a whole number from 0 to ${this.vocabSize - 1}`,
      );
    }
    return text;
  }

  /** The token with exactly this text in the vocabulary, if there is one: `tokenId('<|im_end|>')`. */
  tokenId(text: string): number | undefined {
    return this.#vocabulary.ids.get(text);
  }
}

function checkText(text: unknown): void {
  if (typeof text !== 'string') {
    throw argumentError('BL_INVALID_ARGUMENT', `encode: text is ${typeof text}, expected a string`);
  }
  if (text.length > MAX_TEXT) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `encode: text has ${text.length} code units, expected at most ${MAX_TEXT}`,
    );
  }
  const lone = text.search(/\p{Cs}/u);
  if (lone >= 0) {
    const code = text.charCodeAt(lone).toString(16);
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `encode: text has a lone surrogate U+${code} at ${lone}, expected well-formed Unicode`,
    );
  }
}

/**
 * The tokenizer that a GGUF file carries: SentencePiece's BPE (`tokenizer.ggml.model` is `llama`) or byte-level BPE
 * (`gpt2`).
 *
 * @throws BitloomError `BL_NOT_FOUND` if the file has none, `BL_UNSUPPORTED` for other kinds (`bert`, `t5`, `rwkv`) and
 * unknown pre-tokenizers, `BL_INVALID_FILE` for metadata that contradicts itself.
 *
 * @example
 * const tokenizer = tokenizerFromGGUF(readGGUF(source));
 * tokenizer.decode(tokenizer.encode('Once upon a time')); // 'Once upon a time'
 */
export function tokenizerFromGGUF(file: Pick<GGUFFile, 'metadata'>): Tokenizer {
  const { metadata } = file;
  const kind = textOf(metadata, 'tokenizer.ggml.model');
  if (kind === undefined) fail('tokenizer.ggml.model is missing', 'BL_NOT_FOUND');
  if (kind !== 'llama' && kind !== 'gpt2') {
    fail(`tokenizer.ggml.model is ${quote(kind)}, expected "llama" or "gpt2"`, 'BL_UNSUPPORTED');
  }
  const isLlama = kind === 'llama';
  const vocabulary = readVocabulary(metadata, isLlama ? { bos: 1, eos: 2, unknown: 0 } : {});
  const model = isLlama
    ? new SentencePieceModel(metadata, vocabulary)
    : new ByteLevelModel(metadata, vocabulary);
  const addBos = flag(metadata, 'tokenizer.ggml.add_bos_token', model.addBos);
  return new Tokenizer(vocabulary, model, addBos);
}
