import { Cursor, quote } from './cursor.js';
import { readMetadata } from './gguf_metadata.js';
import {
  type GGMLType,
  type GGUFValue,
  type GGUFValueType,
  ggmlType,
  removedGGMLType,
  tensorBytes,
} from './gguf_types.js';
import type { ByteSource } from './source.js';

/** One tensor of a GGUF file. */
export interface GGUFTensor {
  readonly name: string;
  /** Type name, such as `q4_0`; see {@link GGML_TYPES}. */
  readonly type: string;
  /** Row-major shape `[rows..., cols]`: the file's `ne` reversed. A matrix of weights is `[N, K]`. */
  readonly shape: readonly number[];
  /** Byte offset of the data from the beginning of the file. */
  readonly offset: number;
  /** Bytes of data. */
  readonly bytes: number;
  /** The data, as a view into the source: no copy, valid until the source is disposed. */
  data(): Uint8Array;
}

/** What {@link readGGUF} gives. */
export interface GGUFFile {
  readonly version: 2 | 3;
  /** Metadata in the order of the file. */
  readonly metadata: Map<string, GGUFValue>;
  /** Type of each metadata value in the file; hand both to {@link writeGGUF} to keep them as they are. */
  readonly types: Map<string, GGUFValueType>;
  /** Tensors in the order of the file. */
  readonly tensors: Map<string, GGUFTensor>;
  /** Tensor data begins at multiples of this many bytes. */
  readonly alignment: number;
}

export const GGUF_DEFAULT_ALIGNMENT = 32;

// "GGUF" read as a little-endian number.
const MAGIC = 0x46554747;
// Far above any model (the largest have some 10,000 tensors); bounds the memory that a header can make us use.
const MAX_TENSORS = 2 ** 18;
const MAX_NAME_BYTES = 2 ** 16 - 1;
// A tensor without dimensions and with an empty name: name length, number of dimensions, type, offset.
const MIN_TENSOR_INFO_BYTES = 8 + 4 + 4 + 8;

/**
 * Reads the header of a GGUF file (versions 2 and 3, little endian): metadata and the table of tensors.
 * Tensor data stays where it is until {@link GGUFTensor.data} asks for it.
 *
 * Everything in the header is checked, so that a tensor it gives lies inside the file, has a known type and whole
 * blocks, and shares no byte with another.
 *
 * @throws BitloomError `BL_INVALID_FILE` for a damaged file, `BL_UNSUPPORTED` for a sound one that is not read
 * (version 1, big endian, a tensor type GGML has dropped or that is newer than this library).
 *
 * @example
 * const source = mapFile('model.gguf');
 * const file = readGGUF(source);
 * console.log(file.metadata.get('general.architecture'));
 * const { type, shape, data } = file.tensors.get('token_embd.weight')!;
 */
export function readGGUF(source: ByteSource): GGUFFile {
  const cursor = new Cursor(source, 'readGGUF');
  const version = readVersion(cursor);
  const tensorCount = cursor.u64('tensor count');
  const metadataCount = cursor.u64('metadata count');
  if (tensorCount > MAX_TENSORS || tensorCount * MIN_TENSOR_INFO_BYTES > cursor.remaining) {
    const most = Math.min(MAX_TENSORS, Math.floor(cursor.remaining / MIN_TENSOR_INFO_BYTES));
    cursor.fail(`tensor count at byte 8 is ${tensorCount}, expected at most ${most} in this file`);
  }
  const { metadata, types } = readMetadata(cursor, metadataCount);
  const alignment = readAlignment(cursor, metadata, types);
  const infos = readTensorInfos(cursor, tensorCount);
  const dataStart = Math.ceil(cursor.offset / alignment) * alignment;
  const tensors = new Map<string, GGUFTensor>();
  for (const info of infos) {
    tensors.set(info.name, placeTensor(cursor, info, dataStart, alignment));
  }
  checkOverlaps(cursor, tensors);
  return { version, metadata, types, tensors, alignment };
}

function readVersion(cursor: Cursor): 2 | 3 {
  const magic = cursor.u32('magic');
  if (magic !== MAGIC) {
    const hex = magic.toString(16).padStart(8, '0');
    cursor.fail(`magic at byte 0 is 0x${hex}, expected 0x46554747 ("GGUF")`);
  }
  const version = cursor.u32('version');
  if (version === 2 || version === 3) return version;
  if ((version & 0xffff) === 0 && version !== 0) {
    cursor.fail('the file is big endian, expected little endian', 'BL_UNSUPPORTED');
  }
  return cursor.fail(`version at byte 4 is ${version}, expected 2 or 3`, 'BL_UNSUPPORTED');
}

function readAlignment(
  cursor: Cursor,
  metadata: Map<string, GGUFValue>,
  types: Map<string, GGUFValueType>,
): number {
  const value = metadata.get('general.alignment');
  if (value === undefined) return GGUF_DEFAULT_ALIGNMENT;
  const type = types.get('general.alignment');
  const isPowerOfTwo = typeof value === 'number' && value > 0 && Number.isInteger(Math.log2(value));
  if (type !== 'u32' || !isPowerOfTwo) {
    const shown = type?.endsWith('[]') ? 'an array' : quote(String(value));
    cursor.fail(`general.alignment is ${shown} (${type}), expected a power of two (u32)`);
  }
  return value as number;
}

interface TensorInfo {
  readonly name: string;
  readonly type: GGMLType;
  readonly shape: number[];
  /** From the beginning of the tensor data. */
  readonly relativeOffset: number;
  readonly bytes: number;
}

function readTensorInfos(cursor: Cursor, count: number): TensorInfo[] {
  const infos: TensorInfo[] = [];
  const names = new Set<string>();
  for (let i = 0; i < count; i++) {
    const at = cursor.offset;
    const info = readTensorInfo(cursor);
    if (names.has(info.name)) {
      cursor.fail(`tensor ${quote(info.name)} at byte ${at} occurs twice, expected unique names`);
    }
    names.add(info.name);
    infos.push(info);
  }
  return infos;
}

function readTensorInfo(cursor: Cursor): TensorInfo {
  const at = cursor.offset;
  const nameBytes = cursor.u64('tensor name length');
  if (nameBytes > MAX_NAME_BYTES) {
    cursor.fail(
      `tensor name length at byte ${at} is ${nameBytes}, expected at most ${MAX_NAME_BYTES}`,
    );
  }
  const name = cursor.utf8(nameBytes, 'tensor name');
  const what = `tensor ${quote(name)}`;
  const where = `${what} at byte ${at}`;
  const dimensions = cursor.u32(`number of dimensions of ${what}`);
  if (dimensions > 4) {
    cursor.fail(`${where} has ${dimensions} dimensions, expected at most 4`);
  }
  const shape: number[] = [];
  for (let i = 0; i < dimensions; i++) shape.unshift(cursor.u64(`dimension ${i} of ${what}`));
  const type = tensorType(cursor, cursor.u32(`type of ${what}`), where);
  const relativeOffset = cursor.u64(`offset of ${what}`);
  const size = tensorBytes(type, shape);
  if ('problem' in size) cursor.fail(`${where} has ${size.problem}`);
  return { name, type, shape, relativeOffset, bytes: size.bytes };
}

function tensorType(cursor: Cursor, id: number, where: string): GGMLType {
  const type = ggmlType(id);
  if (type !== undefined) return type;
  const removed = removedGGMLType(id);
  const what =
    removed === undefined
      ? `unknown type ${id}, expected a type of GGML up to 42 (q2_0)`
      : `type ${id} (${removed}), which GGML has dropped; convert the model again`;
  return cursor.fail(`${where} has ${what}`, 'BL_UNSUPPORTED');
}

function placeTensor(
  cursor: Cursor,
  info: TensorInfo,
  dataStart: number,
  alignment: number,
): GGUFTensor {
  const { name, type, shape, relativeOffset, bytes } = info;
  const { source } = cursor;
  if (relativeOffset % alignment !== 0) {
    cursor.fail(
      `tensor ${quote(name)} has offset ${relativeOffset}, expected a multiple of ${alignment} (the alignment)`,
    );
  }
  const offset = dataStart + relativeOffset;
  // Three numbers below 2^53 add up without losing the comparison: rounding never makes a sum smaller than size.
  if (offset + bytes > source.size) {
    cursor.fail(
      `tensor ${quote(name)} needs bytes ${offset} to ${offset + bytes}, but the file has ${source.size}`,
    );
  }
  return {
    name,
    type: type.name,
    shape,
    offset,
    bytes,
    data: () => source.bytes(offset, bytes),
  };
}

function checkOverlaps(cursor: Cursor, tensors: Map<string, GGUFTensor>): void {
  const sorted = [...tensors.values()].sort((a, b) => a.offset - b.offset);
  for (const [i, tensor] of sorted.entries()) {
    const previous = sorted[i - 1];
    if (previous !== undefined && previous.offset + previous.bytes > tensor.offset) {
      cursor.fail(
        `tensor ${quote(tensor.name)} begins at byte ${tensor.offset}, inside ${quote(previous.name)}, ` +
          `which ends at ${previous.offset + previous.bytes}`,
      );
    }
  }
}
