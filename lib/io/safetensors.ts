import { Cursor, quote } from './cursor.js';
import { parseHeader, type SafetensorsEntry } from './safetensors_header.js';
import type { ByteSource } from './source.js';

/** One tensor of a safetensors file. */
export interface SafetensorsTensor {
  readonly name: string;
  /** Element type in lower case, such as `bf16`; see {@link SAFETENSORS_TYPES}. */
  readonly type: string;
  /** Row-major shape; lengths may be 0. */
  readonly shape: readonly number[];
  /** Byte offset of the data from the beginning of the file. */
  readonly offset: number;
  /** Bytes of data. */
  readonly bytes: number;
  /** The data, as a view into the source: no copy, valid until the source is disposed. */
  data(): Uint8Array;
}

/** What {@link readSafetensors} gives. */
export interface SafetensorsFile {
  /** The `__metadata__` of the file. */
  readonly metadata: Map<string, string>;
  /** Tensors in the order of the header. */
  readonly tensors: Map<string, SafetensorsTensor>;
}

/** Bytes of an element of each type. */
export const SAFETENSORS_TYPES: ReadonlyMap<string, number> = new Map([
  ['bool', 1],
  ['u8', 1],
  ['i8', 1],
  ['f8_e4m3', 1],
  ['f8_e5m2', 1],
  ['f8_e8m0', 1],
  ['u16', 2],
  ['i16', 2],
  ['f16', 2],
  ['bf16', 2],
  ['u32', 4],
  ['i32', 4],
  ['f32', 4],
  ['u64', 8],
  ['i64', 8],
  ['f64', 8],
]);

// The bound of the reference implementation.
const MAX_HEADER_BYTES = 100_000_000;

/**
 * Reads the header of a safetensors file. Tensor data stays where it is until {@link SafetensorsTensor.data} asks for
 * it. As in the reference implementation the data has no holes and no overlaps.
 *
 * @throws BitloomError `BL_INVALID_FILE` for a damaged file, `BL_UNSUPPORTED` for element types that are not read
 * (those of less than a byte, and complex numbers).
 *
 * @example
 * const file = readSafetensors(mapFile('model.safetensors'));
 * const { type, shape, data } = file.tensors.get('model.norm.weight')!;
 */
export function readSafetensors(source: ByteSource): SafetensorsFile {
  const cursor = new Cursor(source, 'readSafetensors');
  const length = cursor.u64('header length');
  if (length > MAX_HEADER_BYTES) {
    cursor.fail(`header length at byte 0 is ${length}, expected at most ${MAX_HEADER_BYTES}`);
  }
  const { metadata, entries } = parseHeader(cursor.utf8(length, 'header'));
  const dataStart = cursor.offset;
  const tensors = new Map<string, SafetensorsTensor>();
  for (const entry of entries) {
    const type = checkEntry(cursor, entry);
    const { name, shape } = entry;
    const offset = dataStart + entry.begin;
    const bytes = entry.end - entry.begin;
    tensors.set(name, {
      name,
      type,
      shape,
      offset,
      bytes,
      data: () => source.bytes(offset, bytes),
    });
  }
  checkLayout(cursor, entries, source.size - dataStart);
  return { metadata, tensors };
}

/** Checks what one entry says by itself; gives its type in lower case. */
function checkEntry(cursor: Cursor, entry: SafetensorsEntry): string {
  const { name, dtype, shape, begin, end } = entry;
  const what = `tensor ${quote(name)}`;
  const type = dtype.toLowerCase();
  const width = dtype === dtype.toUpperCase() ? SAFETENSORS_TYPES.get(type) : undefined;
  if (width === undefined) {
    const known = [...SAFETENSORS_TYPES.keys()].join(', ').toUpperCase();
    cursor.fail(`${what} has dtype ${quote(dtype)}, expected one of ${known}`, 'BL_UNSUPPORTED');
  }
  if (begin > end)
    cursor.fail(`${what} has data_offsets [${begin}, ${end}], expected begin <= end`);
  const bytes = tensorBytes(shape, width);
  if (bytes !== end - begin) {
    cursor.fail(
      `${what} has ${end - begin} bytes, expected ${bytes ?? 'less than 2^53'} (${dtype} [${shape.join(', ')}])`,
    );
  }
  return type;
}

/** Bytes of a tensor without gaps; `undefined` from 2^53 on. */
export function tensorBytes(shape: readonly number[], width: number): number | undefined {
  // Zero lengths first: [2^53 - 1, 2^53 - 1, 0] has no elements, and no overflow either.
  if (shape.includes(0)) return 0;
  let bytes = width;
  for (const length of shape) {
    bytes *= length;
    if (bytes > Number.MAX_SAFE_INTEGER) return undefined;
  }
  return bytes;
}

function checkLayout(cursor: Cursor, entries: SafetensorsEntry[], dataBytes: number): void {
  const sorted = [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = 0;
  for (const { name, begin, end } of sorted) {
    if (begin !== at) {
      cursor.fail(
        `tensor ${quote(name)} begins at ${begin} of the data, expected ${at} (no holes, no overlaps)`,
      );
    }
    at = end;
  }
  if (at !== dataBytes) {
    cursor.fail(
      `the file has ${dataBytes} bytes of data, expected ${at} (the end of the last tensor)`,
    );
  }
}
