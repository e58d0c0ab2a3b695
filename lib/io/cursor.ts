import { BitloomError, type BitloomErrorCode } from '../errors.js';
import type { ByteSource } from './source.js';

// A window large enough that a vocabulary is read in few requests, small enough to be cheap for sources that copy.
const WINDOW_BYTES = 1 << 20;

/** Shortens text from a file for an error message: a file may hold strings of many megabytes. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}

/**
 * Reads little-endian fields one after another from a {@link ByteSource}. Every read is checked against the end of
 * the source before anything is allocated; a failed check is a {@link BitloomError} `BL_INVALID_FILE` that names the
 * field and its byte offset.
 */
export class Cursor {
  /** Byte offset of the next field. */
  offset = 0;
  #view: DataView = new DataView(new ArrayBuffer(0));
  #base = 0;
  // ignoreBOM: a byte order mark is an ordinary character of a token, dropping it would make two tokens equal.
  readonly #utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

  constructor(
    readonly source: ByteSource,
    readonly operator: string,
  ) {}

  /** Bytes between the cursor and the end of the source. */
  get remaining(): number {
    return this.source.size - this.offset;
  }

  fail(message: string, code: BitloomErrorCode = 'BL_INVALID_FILE'): never {
    throw new BitloomError(code, `${this.operator}: ${message}`);
  }

  /** Makes sure that `length` bytes follow, and gives their position in the current window. */
  need(length: number, what: string): number {
    if (length > this.remaining) {
      this.fail(
        `${what} at byte ${this.offset} needs ${length} bytes, but the file ends after ${this.remaining} more`,
      );
    }
    const at = this.offset - this.#base;
    if (at >= 0 && at + length <= this.#view.byteLength) return at;
    const bytes = this.source.bytes(
      this.offset,
      Math.max(length, Math.min(WINDOW_BYTES, this.remaining)),
    );
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#base = this.offset;
    return 0;
  }

  /** One field of fixed width. `get` reads it from the view at a position. */
  field<T>(width: number, what: string, get: (view: DataView, at: number) => T): T {
    const at = this.need(width, what);
    this.offset += width;
    return get(this.#view, at);
  }

  u32(what: string): number {
    const at = this.need(4, what);
    this.offset += 4;
    return this.#view.getUint32(at, true);
  }

  /**
   * An unsigned 64-bit count, length or offset. No such number above 2^53 - 1 can describe anything inside a file,
   * so larger ones (negative ones in a signed reading) are errors here, and the rest of the code uses plain numbers.
   */
  u64(what: string): number {
    const at = this.need(8, what);
    const low = this.#view.getUint32(at, true);
    const high = this.#view.getUint32(at + 4, true);
    if (high >= 2 ** 21) {
      const value = this.#view.getBigUint64(at, true);
      this.fail(`${what} at byte ${this.offset} is ${value}, expected at most 2^53 - 1`);
    }
    this.offset += 8;
    return high * 2 ** 32 + low;
  }

  /** A string of `length` bytes, which must be valid UTF-8. */
  utf8(length: number, what: string): string {
    const at = this.need(length, what);
    const bytes = new Uint8Array(this.#view.buffer, this.#view.byteOffset + at, length);
    const text = asciiOrUndefined(bytes) ?? this.#decode(bytes, what);
    this.offset += length;
    return text;
  }

  #decode(bytes: Uint8Array, what: string): string {
    try {
      return this.#utf8.decode(bytes);
    } catch {
      return this.fail(`${what} at byte ${this.offset} is not valid UTF-8`);
    }
  }
}

// TextDecoder costs about a microsecond a call; vocabularies hold several 100,000 short, mostly ASCII strings.
function asciiOrUndefined(bytes: Uint8Array): string | undefined {
  if (bytes.length > 32) return undefined;
  let text = '';
  for (const byte of bytes) {
    if (byte >= 128) return undefined;
    text += String.fromCharCode(byte);
  }
  return text;
}
