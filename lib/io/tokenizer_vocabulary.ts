import { BitloomError, type BitloomErrorCode } from '../errors.js';
import { quote } from './cursor.js';
import type { GGUFValue } from './gguf_types.js';
import { isWellFormed } from './text.js';

/** Metadata of a GGUF file, as {@link readGGUF} gives it. */
export type GGUFMetadata = ReadonlyMap<string, GGUFValue>;

/** Kinds of tokens, numbered as in `tokenizer.ggml.token_type`. */
export const TOKEN_NORMAL = 1;
export const TOKEN_UNKNOWN = 2;
export const TOKEN_CONTROL = 3;
export const TOKEN_USER_DEFINED = 4;
export const TOKEN_BYTE = 6;

// Texts of tokens that end a turn, for files that do not say which tokens do: those of Llama 3, ChatML, Phi, gpt-oss,
// Gemma, GPT-2, Granite, Kimi, DeepSeek. llama.cpp looks for the same ones.
const END_TEXTS: ReadonlySet<string> = new Set([
  '</s>',
  '<|eot_id|>',
  '<|eom_id|>',
  '<|im_end|>',
  '<|end|>',
  '<|return|>',
  '<|call|>',
  '<end_of_turn>',
  '<|endoftext|>',
  '<|end_of_text|>',
  '<EOT>',
  '[EOT]',
  '[EOS]',
  '<end_of_utterance>',
  '<｜end▁of▁sentence｜>',
]);

/** A vocabulary and what the file says about its special tokens. */
export interface Vocabulary {
  readonly tokens: readonly string[];
  /** Kind of each token. */
  readonly kinds: readonly number[];
  readonly ids: ReadonlyMap<string, number>;
  /** Code units of the longest token. */
  readonly maxLength: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly unknownId: number | undefined;
  /** All tokens that end a turn or a text, `eosId` among them, in rising order. */
  readonly eotIds: readonly number[];
}

/** Reads and checks the parts of the metadata that all kinds of tokenizers share. */
export function readVocabulary(metadata: GGUFMetadata, defaults: DefaultIds): Vocabulary {
  const texts = list(metadata, 'tokenizer.ggml.tokens', 'string');
  if (texts === undefined || texts.length === 0)
    fail('tokenizer.ggml.tokens is missing or empty', 'BL_NOT_FOUND');
  const tokens = texts.map((text, id) => (text === '' ? `[EMPTY_${id}]` : text));
  const ids = new Map<string, number>();
  let maxLength = 0;
  for (const [id, text] of tokens.entries()) {
    const first = ids.get(text);
    if (first !== undefined) {
      fail(`token ${quote(text)} has ids ${first} and ${id}, expected unique tokens`);
    }
    if (!isWellFormed(text)) fail(`token ${id} has a lone surrogate, expected valid Unicode`);
    ids.set(text, id);
    maxLength = Math.max(maxLength, text.length);
  }
  const kinds = perToken(metadata, 'tokenizer.ggml.token_type', tokens.length, TOKEN_NORMAL).slice(
    0,
    tokens.length,
  );
  const special = (name: string, fallback: number | undefined) =>
    tokenId(metadata, `tokenizer.ggml.${name}_token_id`, tokens.length, fallback);
  const eosId = special('eos', defaults.eos);
  const ends = new Set([eosId, special('eot', undefined), special('eom', undefined)]);
  for (const text of END_TEXTS) {
    const id = ids.get(text);
    if (id === undefined) continue;
    ends.add(id);
    // Some converters leave these as normal tokens; as text of a prompt they would end the turn all the same.
    kinds[id] = TOKEN_CONTROL;
  }
  ends.delete(undefined);
  return {
    tokens,
    kinds,
    ids,
    maxLength,
    bosId: special('bos', defaults.bos),
    eosId,
    unknownId: special('unknown', defaults.unknown),
    eotIds: ([...ends] as number[]).sort((a, b) => a - b),
  };
}

/** Ids of special tokens in files that do not give them. */
export interface DefaultIds {
  readonly bos?: number;
  readonly eos?: number;
  readonly unknown?: number;
}

/** A list with a number for each token; all of them `fallback` if the file has no such list. */
export function perToken(
  metadata: GGUFMetadata,
  key: string,
  count: number,
  fallback: number,
): readonly number[] {
  const values = list(metadata, key, 'number');
  if (values === undefined) return new Array<number>(count).fill(fallback);
  if (values.length < count)
    fail(`${key} has ${values.length} entries, expected ${count} (one for each token)`);
  const bad = values.findIndex((value) => Number.isNaN(value));
  if (bad >= 0) fail(`${key}[${bad}] is NaN, expected a number`);
  return values;
}

/** A list of strings or numbers, if the metadata has it. */
export function list<T extends 'string' | 'number'>(
  metadata: GGUFMetadata,
  key: string,
  type: T,
): (T extends 'string' ? string : number)[] | undefined {
  const value = metadata.get(key);
  if (value === undefined) return undefined;
  if (!Array.isArray(value)) fail(`${key} is a ${typeof value}, expected a list of type ${type}`);
  const bad = value.findIndex((element) => typeof element !== type);
  if (bad >= 0) fail(`${key}[${bad}] is a ${typeof value[bad]}, expected a ${type}`);
  return value as (T extends 'string' ? string : number)[];
}

/** A switch, `fallback` if the metadata does not have it. */
export function flag(metadata: GGUFMetadata, key: string, fallback: boolean): boolean {
  const value = metadata.get(key) ?? fallback;
  if (typeof value !== 'boolean') fail(`${key} is a ${typeof value}, expected a boolean`);
  return value;
}

/** A name, if the metadata has it. */
export function text(metadata: GGUFMetadata, key: string): string | undefined {
  const value = metadata.get(key);
  if (value !== undefined && typeof value !== 'string')
    fail(`${key} is a ${typeof value}, expected a string`);
  return value;
}

function tokenId(
  metadata: GGUFMetadata,
  key: string,
  count: number,
  fallback: number | undefined,
): number | undefined {
  const value = metadata.get(key);
  if (value === undefined) return fallback !== undefined && fallback < count ? fallback : undefined;
  const ok = typeof value === 'number' && Number.isInteger(value);
  // -1, also as an unsigned number, is how some converters write "none".
  if (ok && (value === -1 || value === 2 ** 32 - 1)) return undefined;
  if (!ok || value < 0 || value >= count) {
    const shown = typeof value === 'number' ? String(value) : `a ${typeof value}`;
    fail(`${key} is ${shown}, expected 0 to ${count - 1}`);
  }
  return value;
}

export function fail(message: string, code: BitloomErrorCode = 'BL_INVALID_FILE'): never {
  throw new BitloomError(code, `tokenizerFromGGUF: ${message}`);
}
