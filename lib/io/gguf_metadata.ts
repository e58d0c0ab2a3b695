import { type Cursor, quote } from './cursor.js';
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

// Bounds on what a hostile header can make us hold. The largest vocabularies known have about 300,000 tokens and
// 600,000 merges; a chat template has some 10,000 characters.
const MAX_METADATA = 2 ** 16;
const MAX_ARRAY_ELEMENTS = 2 ** 23; // in all arrays of the file together
const MAX_STRING_BYTES = 2 ** 26;
const MAX_METADATA_BYTES = 2 ** 27; // in all
const MAX_KEY_BYTES = 2 ** 16 - 1; // the format's own bound
const MIN_ENTRY_BYTES = 8 + 4 + 1;

interface Kind {
  readonly name: GGUFNumberType | 'bool' | 'string' | 'array';
  /** Fewest bytes of one such value, so that a count can be held against the rest of the file. */
  readonly minBytes: number;
  readonly read: (cursor: Cursor, what: string) => GGUFValue;
}

type Getter = (view: DataView, at: number) => number | bigint;

const GETTERS: Record<GGUFNumberType, Getter> = {
  u8: (view, at) => view.getUint8(at),
  i8: (view, at) => view.getInt8(at),
  u16: (view, at) => view.getUint16(at, true),
  i16: (view, at) => view.getInt16(at, true),
  u32: (view, at) => view.getUint32(at, true),
  i32: (view, at) => view.getInt32(at, true),
  f32: (view, at) => view.getFloat32(at, true),
  u64: (view, at) => smallest(view.getBigUint64(at, true)),
  i64: (view, at) => smallest(view.getBigInt64(at, true)),
  f64: (view, at) => view.getFloat64(at, true),
};

function smallest(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

const KINDS: ReadonlyMap<number, Kind> = new Map<number, Kind>([
  ...(Object.keys(GGUF_NUMBERS) as GGUFNumberType[]).map((name): [number, Kind] => {
    const { id, width } = GGUF_NUMBERS[name];
    const get = GETTERS[name];
    return [id, { name, minBytes: width, read: (cursor, what) => cursor.field(width, what, get) }];
  }),
  [GGUF_BOOL, { name: 'bool', minBytes: 1, read: readBool }],
  [GGUF_STRING, { name: 'string', minBytes: 8, read: readString }],
  [GGUF_ARRAY, { name: 'array', minBytes: 12, read: readString }],
]);

function readBool(cursor: Cursor, what: string): boolean {
  const at = cursor.offset;
  const value = cursor.field(1, what, (view, position) => view.getUint8(position));
  if (value > 1) cursor.fail(`${what} at byte ${at} is ${value}, expected 0 or 1 (bool)`);
  return value === 1;
}

function readString(cursor: Cursor, what: string): string {
  return readText(cursor, what, MAX_STRING_BYTES);
}

function readText(cursor: Cursor, what: string, most: number): string {
  // Only texts can take much room: the lengths of arrays are bounded.
  if (cursor.offset > MAX_METADATA_BYTES) {
    cursor.fail(
      `${what} begins at byte ${cursor.offset}, expected all metadata in the first ${MAX_METADATA_BYTES}`,
    );
  }
  const at = cursor.offset;
  const length = cursor.u64(`length of ${what}`);
  // The end of the file is the better answer where both are exceeded.
  if (length > most && length <= cursor.remaining) {
    cursor.fail(`length of ${what} at byte ${at} is ${length}, expected at most ${most}`);
  }
  return cursor.utf8(length, what);
}

/** Metadata values by key, with their types. */
export interface Metadata {
  readonly metadata: Map<string, GGUFValue>;
  readonly types: Map<string, GGUFValueType>;
}

/** Reads `count` metadata entries. */
export function readMetadata(cursor: Cursor, count: number): Metadata {
  if (count > MAX_METADATA || count * MIN_ENTRY_BYTES > cursor.remaining) {
    const most = Math.min(MAX_METADATA, Math.floor(cursor.remaining / MIN_ENTRY_BYTES));
    cursor.fail(`metadata count at byte 16 is ${count}, expected at most ${most} in this file`);
  }
  const metadata = new Map<string, GGUFValue>();
  const types = new Map<string, GGUFValueType>();
  const arrays = new ArrayReader(cursor);
  for (let i = 0; i < count; i++) {
    const at = cursor.offset;
    const key = readText(cursor, `metadata key ${i}`, MAX_KEY_BYTES);
    const what = `metadata ${quote(key)}`;
    if (metadata.has(key)) cursor.fail(`${what} at byte ${at} occurs twice, expected unique keys`);
    const kind = readKind(cursor, what);
    if (kind.name === 'array') {
      const { value, type } = arrays.read(what, 1);
      metadata.set(key, value);
      types.set(key, type);
    } else {
      metadata.set(key, kind.read(cursor, what));
      types.set(key, kind.name);
    }
  }
  return { metadata, types };
}

function readKind(cursor: Cursor, what: string): Kind {
  const at = cursor.offset;
  const id = cursor.u32(`type of ${what}`);
  return (
    KINDS.get(id) ??
    cursor.fail(`type of ${what} at byte ${at} is ${id}, expected 0 (u8) to 12 (f64)`)
  );
}

/** Reads arrays, counting the elements of all of them. */
class ArrayReader {
  #elements = 0;

  constructor(readonly cursor: Cursor) {}

  /** The array at the cursor: element type, length, elements. */
  read(what: string, depth: number): { value: GGUFValue[]; type: `${string}[]` } {
    const { cursor } = this;
    const kind = readKind(cursor, `elements of ${what}`);
    const at = cursor.offset;
    const length = cursor.u64(`length of ${what}`);
    if (length * kind.minBytes > cursor.remaining) {
      cursor.fail(
        `length of ${what} at byte ${at} is ${length} (${kind.name}), but only ${cursor.remaining} bytes follow`,
      );
    }
    this.#elements += length;
    if (this.#elements > MAX_ARRAY_ELEMENTS) {
      cursor.fail(
        `${what} at byte ${at} has ${length} elements, expected at most ${MAX_ARRAY_ELEMENTS} in all arrays`,
      );
    }
    if (kind.name === 'array') return this.#nested(what, length, depth);
    const value: GGUFValue[] = [];
    for (let i = 0; i < length; i++) value.push(kind.read(cursor, what));
    return { value, type: `${kind.name}[]` };
  }

  #nested(what: string, length: number, depth: number) {
    const { cursor } = this;
    if (depth >= GGUF_MAX_DEPTH) {
      cursor.fail(
        `${what} nests arrays more than ${GGUF_MAX_DEPTH} deep at byte ${cursor.offset}`,
        'BL_UNSUPPORTED',
      );
    }
    const value: GGUFValue[] = [];
    let type: `${string}[]` | undefined;
    for (let i = 0; i < length; i++) {
      const at = cursor.offset;
      const inner = this.read(what, depth + 1);
      type ??= inner.type;
      if (inner.type !== type) {
        cursor.fail(
          `${what} at byte ${at} has elements of types ${type} and ${inner.type}, expected one type`,
          'BL_UNSUPPORTED',
        );
      }
      value.push(inner.value);
    }
    return { value, type: `${type ?? 'u8[]'}[]` as const };
  }
}
