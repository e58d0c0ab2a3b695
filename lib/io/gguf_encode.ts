import { argumentError } from '../errors.js';
import { quote } from './cursor.js';
import {
  GGUF_ARRAY,
  GGUF_BOOL,
  GGUF_MAX_DEPTH,
  GGUF_NUMBERS,
  GGUF_STRING,
  type GGUFNumberType,
  type GGUFValue,
  type GGUFValueType,
} from './gguf_types.js';
import { isWellFormed } from './text.js';

/** Collects the little-endian bytes of a header. */
export class ByteWriter {
  #bytes = new Uint8Array(4096);
  #view = new DataView(this.#bytes.buffer);
  length = 0;
  readonly #utf8 = new TextEncoder();

  /** Room for `width` more bytes; gives the view and the position to write at. */
  field(width: number, set: (view: DataView, at: number) => void): void {
    this.#grow(width);
    set(this.#view, this.length);
    this.length += width;
  }

  u32(value: number): void {
    this.field(4, (view, at) => view.setUint32(at, value, true));
  }

  /** @param value At most 2^53 - 1. */
  u64(value: number): void {
    this.u32(value % 2 ** 32);
    this.u32(Math.floor(value / 2 ** 32));
  }

  string(text: string): void {
    this.#grow(8 + 3 * text.length); // UTF-8 takes at most 3 bytes for a UTF-16 unit
    const { written } = this.#utf8.encodeInto(text, this.#bytes.subarray(this.length + 8));
    this.u64(written);
    this.length += written;
  }

  /** Zeros up to a multiple of `alignment`. */
  align(alignment: number): void {
    const padding = (alignment - (this.length % alignment)) % alignment;
    this.#grow(padding);
    this.length += padding;
  }

  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }

  #grow(width: number): void {
    if (this.length + width <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.length + width));
    larger.set(this.#bytes.subarray(0, this.length));
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}

/**
 * The type that a value gets when the caller names none: `bool`, `string`, the first of `u32`, `i32`, `u64`, `i64`
 * that holds it, `f32` for other numbers. An array gets the type that holds all its elements.
 */
export function inferType(value: GGUFValue, what: string, depth = 0): GGUFValueType {
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'string') return 'string';
  if (!Array.isArray(value)) return numberType([value], what);
  if (depth >= GGUF_MAX_DEPTH) throw tooDeep(what);
  const first = value[0];
  if (typeof first === 'number' || typeof first === 'bigint') return `${numberType(value, what)}[]`;
  if (first === undefined) return 'u8[]';
  return `${inferType(first, what, depth + 1)}[]`;
}

function numberType(values: readonly GGUFValue[], what: string): GGUFNumberType {
  let min = 0n;
  let max = 0n;
  for (const value of values) {
    if (typeof value === 'number' && !Number.isSafeInteger(value)) return 'f32';
    if (typeof value !== 'number' && typeof value !== 'bigint')
      throw wrong(what, value, 'a number');
    const whole = BigInt(value);
    if (whole < min) min = whole;
    if (whole > max) max = whole;
  }
  for (const type of ['u32', 'i32', 'u64', 'i64'] as const) {
    if (min >= GGUF_NUMBERS[type].min && max <= GGUF_NUMBERS[type].max) return type;
  }
  throw argumentError('BL_OUT_OF_RANGE', `${what} is outside 64 bits (${min} to ${max})`);
}

/** Appends the type of a value and the value. */
export function encodeValue(
  out: ByteWriter,
  value: GGUFValue,
  type: GGUFValueType,
  what: string,
): void {
  out.u32(typeId(type, what));
  encodeBody(out, value, type, what, 0);
}

function typeId(type: GGUFValueType, what: string): number {
  if (type.endsWith('[]')) return GGUF_ARRAY;
  if (type === 'bool') return GGUF_BOOL;
  if (type === 'string') return GGUF_STRING;
  if (Object.hasOwn(GGUF_NUMBERS, type)) return GGUF_NUMBERS[type as GGUFNumberType].id;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${what} has type ${quote(type)}, expected bool, string, ${Object.keys(GGUF_NUMBERS).join(', ')} or such with []`,
  );
}

function encodeBody(
  out: ByteWriter,
  value: GGUFValue,
  type: GGUFValueType,
  what: string,
  depth: number,
): void {
  if (type.endsWith('[]')) {
    if (depth >= GGUF_MAX_DEPTH) throw tooDeep(what);
    if (!Array.isArray(value)) throw wrong(what, value, `an array (${type})`);
    const elementType = type.slice(0, -2) as GGUFValueType;
    out.u32(typeId(elementType, what));
    out.u64(value.length);
    for (const element of value) encodeBody(out, element, elementType, what, depth + 1);
  } else if (type === 'bool') {
    if (typeof value !== 'boolean') throw wrong(what, value, 'a boolean');
    out.field(1, (view, at) => view.setUint8(at, value ? 1 : 0));
  } else if (type === 'string') {
    if (typeof value !== 'string') throw wrong(what, value, 'a string');
    if (!isWellFormed(value)) throw wrong(what, value, 'text without lone surrogates');
    out.string(value);
  } else {
    encodeNumber(out, value, type as GGUFNumberType, what);
  }
}

function encodeNumber(out: ByteWriter, value: GGUFValue, type: GGUFNumberType, what: string): void {
  if (typeof value !== 'number' && typeof value !== 'bigint') {
    throw wrong(what, value, `a number (${type})`);
  }
  if (type === 'f32') {
    out.field(4, (view, at) => view.setFloat32(at, Number(value), true));
  } else if (type === 'f64') {
    out.field(8, (view, at) => view.setFloat64(at, Number(value), true));
  } else {
    encodeWhole(out, value, type, what);
  }
}

function encodeWhole(
  out: ByteWriter,
  value: number | bigint,
  type: GGUFNumberType,
  what: string,
): void {
  if (typeof value === 'number' && !Number.isInteger(value)) {
    throw wrong(what, value, `a whole number (${type})`);
  }
  const whole = BigInt(value);
  const { width, min, max } = GGUF_NUMBERS[type];
  if (whole < min || whole > max) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${what} is ${whole}, expected ${min} to ${max} (${type})`,
    );
  }
  out.field(width, (view, at) => {
    // Two's complement: the low bytes are the same for signed and unsigned.
    if (width === 1) view.setUint8(at, Number(BigInt.asUintN(8, whole)));
    else if (width === 2) view.setUint16(at, Number(BigInt.asUintN(16, whole)), true);
    else if (width === 4) view.setUint32(at, Number(BigInt.asUintN(32, whole)), true);
    else view.setBigUint64(at, BigInt.asUintN(64, whole), true);
  });
}

function wrong(what: string, value: unknown, expected: string): Error {
  let actual: string = Array.isArray(value) ? 'an array' : typeof value;
  if (typeof value === 'string') actual = quote(value);
  else if (typeof value === 'number' || typeof value === 'boolean') actual = String(value);
  return argumentError('BL_INVALID_ARGUMENT', `${what} is ${actual}, expected ${expected}`);
}

function tooDeep(what: string): Error {
  return argumentError(
    'BL_INVALID_ARGUMENT',
    `${what} nests arrays deeper than ${GGUF_MAX_DEPTH}, expected at most that`,
  );
}
