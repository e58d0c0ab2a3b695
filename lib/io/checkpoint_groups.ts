// What the importers share: group sizes, scales, act-order, and the blocks of bitloom's grouped formats.
import { readers, valuesToBits } from '../elements.js';
import { argumentError, BitloomError } from '../errors.js';
import type { Format } from '../generated.js';
import { QuantizedTensor } from '../quantized_tensor.js';
import { type CheckedTensor, shown } from './checkpoint_tensor.js';

/** A weight matrix from a checkpoint. */
export interface ImportedWeight {
  /** [N, K], a row per output. */
  readonly weight: QuantizedTensor;
  /**
   * Only for weights quantized in the order of activations: column j of `weight` multiplies activation
   * `columnOrder[j]`. A permutation of 0 to K - 1.
   */
  readonly columnOrder?: Int32Array;
}

/** Codes and groups of an import. */
export interface GroupOptions {
  /** Bits of a code. */
  readonly bits: number;
  /** Columns that share a scale: 32, 64, 128, 256, or -1 for the whole row. */
  readonly groupSize: number;
}

/** How the columns of a matrix are cut in groups. */
export interface Groups {
  /** Columns of a group, at most K. */
  readonly size: number;
  /** Columns that a block has room for. */
  readonly blockElements: number;
  /** Groups of a row; the last may be shorter than the others. */
  readonly count: number;
  /** The format's suffix: `g128`, `row`. */
  readonly suffix: string;
}

/** Scales as the formats hold them. */
export interface Scales {
  readonly dtype: 'f16' | 'bf16';
  /** Raw bits, in the order of the tensor. */
  readonly bits: Uint16Array;
}

/** A matrix that {@link assemble} makes blocks of. */
export interface GroupedMatrix {
  readonly rows: number;
  readonly cols: number;
  readonly bits: number;
  readonly groups: Groups;
  readonly scales: Scales;
  /** Zero points less `zeroOffset`, in the order of the scales; without them 2^(bits-1). */
  readonly zeros: Uint8Array | undefined;
  readonly zeroOffset: 0 | 1;
  /** Scale and zero point of group g of row r are at r * rowStride + g * groupStride. */
  readonly rowStride: number;
  readonly groupStride: number;
  readonly columnOrder: Int32Array | undefined;
  /** Writes the codes of `count` rows, in the order of the checkpoint, to codes[count, cols]. */
  unpack(firstRow: number, count: number, codes: Uint8Array): void;
}

/**
 * Rows that {@link assemble} has unpacked together. A multiple of 8, the rows in an AWQ word; 32 int32 are two cache
 * lines, so that a walk down the columns of a GPTQ matrix uses what it fetches.
 */
export const TILE_ROWS = 32;

const GROUP_SIZES = [32, 64, 128, 256];

/** Throws `BL_UNSUPPORTED` unless `bits` is one of `expected`. */
export function checkBits(operator: string, bits: unknown, expected: readonly number[]): number {
  if (expected.includes(bits as number)) return bits as number;
  throw new BitloomError(
    'BL_UNSUPPORTED',
    `${operator}: bits is ${shown(bits)}, expected ${expected.join(', ')}`,
  );
}

/** Cuts rows of `cols`; throws `BL_UNSUPPORTED` for sizes that no format has. */
export function cutGroups(operator: string, groupSize: unknown, cols: number): Groups {
  const size = groupSize as number;
  if (GROUP_SIZES.includes(size)) {
    const count = Math.ceil(cols / size);
    return { size: Math.min(size, cols), blockElements: size, count, suffix: `g${size}` };
  }
  if (size === -1 || size === cols) {
    return { size: cols, blockElements: cols, count: 1, suffix: 'row' };
  }
  throw new BitloomError(
    'BL_UNSUPPORTED',
    `${operator}: groupSize is ${shown(groupSize)}, expected 32, 64, 128, 256, or -1 (the row of ${cols})`,
  );
}

/**
 * The bits of scales in f16 or bf16. f32 scales become f16 if all of them are f16 numbers, or else bf16 if all are
 * bf16 numbers; throws `BL_UNSUPPORTED` otherwise, and `BL_NON_FINITE` for infinities and NaN.
 */
export function readScales(tensor: CheckedTensor): Scales {
  const { what, type } = tensor.expectType('f16', 'bf16', 'f32');
  if (type === 'f32') return narrowScales(tensor.float32(), what);
  const dtype = type as 'f16' | 'bf16';
  const bits = tensor.uint16();
  const exponent = dtype === 'f16' ? 0x7c00 : 0x7f80;
  const bad = bits.findIndex((code) => (code & exponent) === exponent);
  if (bad >= 0) throw nonFinite(what, bad);
  return { dtype, bits };
}

function narrowScales(values: Float32Array, what: string): Scales {
  const bad = values.findIndex((value) => !Number.isFinite(value));
  if (bad >= 0) throw nonFinite(what, bad);
  let inexact = -1;
  for (const dtype of ['f16', 'bf16'] as const) {
    const bits = valuesToBits(dtype, Array.from(values)) as Uint16Array;
    const view = new DataView(bits.buffer);
    const read = readers[dtype];
    inexact = values.findIndex((value, i) => read(view, 2 * i) !== value);
    if (inexact < 0) return { dtype, bits };
  }
  throw new BitloomError(
    'BL_UNSUPPORTED',
    `${what}[${inexact}] is ${values[inexact]} in f32, expected scales that are all exact in f16, or all in bf16`,
  );
}

function nonFinite(what: string, index: number): Error {
  return argumentError('BL_NON_FINITE', `${what}[${index}] is not finite, expected a finite scale`);
}

/**
 * The order that brings the columns of each group together, those of a group in their old order; `undefined` if
 * they are so already.
 *
 * @param tensor i32 [K], the group of each column
 * @throws `BL_OUT_OF_RANGE`, `BL_UNSUPPORTED` if groups differ in length (but for the last)
 */
export function orderColumns(
  tensor: CheckedTensor,
  indices: Int32Array,
  groups: Groups,
): Int32Array | undefined {
  const { size, count } = groups;
  const cols = indices.length;
  const order = new Int32Array(cols);
  const members = new Int32Array(count);
  let sorted = true;
  for (let column = 0; column < cols; column++) {
    const group = indices[column] as number;
    if (group < 0 || group >= count) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `${tensor.what}[${column}] is ${group}, expected 0 to ${count - 1} (groups of ${size})`,
      );
    }
    const at = group * size + (members[group] as number)++;
    if (at !== column) sorted = false;
    // Beyond a full group this writes where it should not; the count below tells.
    order[at] = column;
  }
  for (let group = 0; group < count; group++) {
    const expected = Math.min(size, cols - group * size);
    if (members[group] !== expected) {
      throw new BitloomError(
        'BL_UNSUPPORTED',
        `${tensor.what} gives group ${group} ${members[group]} columns, expected ${expected} (of ${cols})`,
      );
    }
  }
  return sorted ? undefined : order;
}

/** Reads `count` codes from a stream of bits, least significant first; `from` is a whole word. */
export function unpackStream(
  words: Int32Array,
  from: number,
  bits: number,
  count: number,
  codes: Uint8Array,
  to: number,
): void {
  const mask = (1 << bits) - 1;
  let word = from;
  let shift = 0;
  for (let i = 0; i < count; i++) {
    // >> and not >>>, whose results from 2^31 on are objects on the heap in code not yet optimized: 8 times as slow.
    let code = (words[word] as number) >> shift;
    shift += bits;
    if (shift >= 32) {
      shift -= 32;
      const low = bits - shift;
      code &= (1 << low) - 1;
      word++;
      if (shift > 0) code |= (words[word] as number) << low;
    }
    codes[to + i] = code & mask;
  }
}

/** Makes the weight: `u<bits>z`, or `u<bits>` where every zero point is 2^(bits-1). */
export function assemble(matrix: GroupedMatrix): ImportedWeight {
  const { rows, cols, bits, groups, scales, columnOrder } = matrix;
  const middle = 2 ** (bits - 1) - matrix.zeroOffset;
  const zeros = matrix.zeros?.some((zero) => zero !== middle) ? matrix.zeros : undefined;
  const dtype = scales.dtype === 'bf16' ? '_bf16' : '';
  const format = `u${bits}${zeros ? 'z' : ''}_${groups.suffix}${dtype}` as Format;
  const weight = QuantizedTensor.empty(format, [rows, cols]);
  const blocks = new BlockWriter(weight.bytes, matrix, zeros);
  const tile = new Uint8Array(Math.min(TILE_ROWS, rows) * cols);
  const sorted = columnOrder && new Uint8Array(cols);
  for (let first = 0; first < rows; first += TILE_ROWS) {
    const count = Math.min(TILE_ROWS, rows - first);
    matrix.unpack(first, count, tile);
    for (let row = 0; row < count; row++) {
      if (sorted === undefined || columnOrder === undefined) {
        blocks.writeRow(first + row, tile, row * cols);
      } else {
        permute(tile, row * cols, columnOrder, sorted);
        blocks.writeRow(first + row, sorted, 0);
      }
    }
  }
  return columnOrder === undefined ? { weight } : { weight, columnOrder };
}

/** Writes rows one after another as blocks: scale, zero point if any, codes. */
class BlockWriter {
  #at = 0;
  /** f16 or bf16 of each zero point. */
  readonly #zeroBits: Uint16Array;
  readonly #codeBytes: number;

  constructor(
    readonly bytes: Uint8Array,
    readonly matrix: GroupedMatrix,
    readonly zeros: Uint8Array | undefined,
  ) {
    const { bits, groups, scales, zeroOffset } = matrix;
    const numbers = Array.from({ length: 2 ** bits }, (_, code) => code + zeroOffset);
    this.#zeroBits = valuesToBits(scales.dtype, numbers) as Uint16Array;
    this.#codeBytes = Math.ceil((groups.blockElements * bits) / 8);
  }

  /** The row whose codes begin at codes[from]. What it skips of the last block stays zero. */
  writeRow(row: number, codes: Uint8Array, from: number): void {
    const { bytes, zeros } = this;
    const { cols, bits, groups, scales, rowStride, groupStride } = this.matrix;
    for (let group = 0; group < groups.count; group++) {
      const index = row * rowStride + group * groupStride;
      this.#u16(scales.bits[index] as number);
      if (zeros !== undefined) this.#u16(this.#zeroBits[zeros[index] as number] as number);
      const column = group * groups.size;
      const count = Math.min(groups.size, cols - column);
      packStream(codes, from + column, count, bits, bytes, this.#at);
      this.#at += this.#codeBytes;
    }
  }

  #u16(value: number): void {
    this.bytes[this.#at++] = value;
    this.bytes[this.#at++] = value >>> 8;
  }
}

// The loops over codes are functions of their own, of numbers and typed arrays, so that V8 compiles each once.

/** Writes `count` codes as a stream of bits, least significant first. */
function packStream(
  codes: Uint8Array,
  from: number,
  count: number,
  bits: number,
  bytes: Uint8Array,
  to: number,
): void {
  let at = to;
  let pending = 0;
  let pendingBits = 0;
  for (let i = from; i < from + count; i++) {
    pending |= (codes[i] as number) << pendingBits;
    pendingBits += bits;
    if (pendingBits >= 8) {
      bytes[at++] = pending;
      pending >>>= 8;
      pendingBits -= 8;
    }
  }
  if (pendingBits > 0) bytes[at] = pending;
}

/** sorted[j] = codes[from + order[j]] */
function permute(codes: Uint8Array, from: number, order: Int32Array, sorted: Uint8Array): void {
  for (let j = 0; j < order.length; j++) {
    sorted[j] = codes[from + (order[j] as number)] as number;
  }
}
