import { argumentError } from '../errors.js';
import {
  assemble,
  checkBits,
  cutGroups,
  type GroupOptions,
  type Groups,
  type ImportedWeight,
  orderColumns,
  readScales,
} from './checkpoint_groups.js';
import { CheckedTensor, type CheckpointTensor } from './checkpoint_tensor.js';

/**
 * The tensors of a layer in the format "pack-quantized" of compressed-tensors (llm-compressor); G groups of columns.
 * A word holds floor(32 / bits) codes from its low end, spare bits at its high end; a code is the signed integer
 * plus 2^(bits-1).
 */
export interface CompressedTensors {
  /** i32 [N, ceil(K / codes of a word)]. */
  readonly weightPacked: CheckpointTensor;
  /** f16, bf16 or f32 [N, G]; [1] for the strategy "tensor". */
  readonly weightScale: CheckpointTensor;
  /** i32 or i64 [2]: N, K. */
  readonly weightShape: CheckpointTensor;
  /** i32 [ceil(N / codes of a word), G], packed down the columns, or i8 [N, G] ([1]: "tensor"); default: symmetric, all 0. */
  readonly weightZeroPoint?: CheckpointTensor | undefined;
  /** i32 [K], the group of each column; absent or all -1: columns in order. */
  readonly weightGIdx?: CheckpointTensor | undefined;
}

const OPERATOR = 'importCompressedTensors';

/**
 * Takes over a weight matrix from a checkpoint of compressed-tensors in the format "pack-quantized", without loss.
 * Columns in the order of activations (`actorder: "group"`) are sorted by group, see
 * {@link ImportedWeight.columnOrder}.
 *
 * @param options `bits` (`num_bits`) is 2, 3, 4 or 8; `groupSize` is -1 for the strategies "channel" and "tensor", of
 *   which the second has one scale, which every row then has
 * @returns [N, K] in `u<bits>_g<groupSize>`, or `u<bits>z` if zero points differ from 0; `_bf16` for bf16 scales
 * @throws as `importGptq`
 *
 * @example
 * const at = (name: string) => file.tensors.get(`model.layers.0.mlp.up_proj.weight_${name}`)!;
 * const { weight } = importCompressedTensors(
 *   { weightPacked: at('packed'), weightScale: at('scale'), weightShape: at('shape') },
 *   { bits: 4, groupSize: 128 },
 * );
 */
export function importCompressedTensors(
  tensors: CompressedTensors,
  options: GroupOptions,
): ImportedWeight {
  const bits = checkBits(OPERATOR, options.bits, [2, 3, 4, 8]);
  const wordCodes = Math.floor(32 / bits);
  const [rows, cols] = readShape(tensors.weightShape);
  const words = Math.ceil(cols / wordCodes);
  const groups = cutGroups(OPERATOR, options.groupSize, cols);
  const weightPacked = new CheckedTensor(OPERATOR, 'weightPacked', tensors.weightPacked)
    .expectType('i32')
    .expectShape([rows, words], `[N, K / ${wordCodes}], weight_shape is [${rows}, ${cols}]`);
  const weightScale = new CheckedTensor(
    OPERATOR,
    'weightScale',
    forEachRow(tensors.weightScale, rows, groups),
  ).expectShape([rows, groups.count], `[N, groups of ${groups.size} in K = ${cols}]`);

  const { weightZeroPoint } = tensors;
  const zeroPoint =
    weightZeroPoint?.type === 'i8' ? forEachRow(weightZeroPoint, rows, groups) : weightZeroPoint;
  const packed = weightPacked.int32();
  return assemble({
    rows,
    cols,
    bits,
    groups,
    scales: readScales(weightScale),
    zeros: readZeros(zeroPoint, rows, groups, bits),
    zeroOffset: 0,
    rowStride: groups.count,
    groupStride: 1,
    columnOrder: readOrder(tensors.weightGIdx, cols, groups),
    unpack(firstRow, count, codes) {
      for (let row = 0; row < count; row++) {
        const line = (firstRow + row) * words;
        unpackWords(packed, line, bits, codes, row * cols, cols);
      }
    },
  });
}

/** What the matrix has one of (strategy "tensor"), as [N, 1]; other tensors as they are. */
function forEachRow(tensor: CheckpointTensor, rows: number, groups: Groups): CheckpointTensor {
  const shape: unknown = tensor?.shape;
  if (groups.count !== 1 || !Array.isArray(shape) || shape.length > 2) return tensor;
  // What is no tensor is refused where it is read.
  if (!shape.every((length) => length === 1) || typeof tensor.data !== 'function') return tensor;
  const { name, type } = tensor;
  const data = (): Uint8Array => {
    const one = tensor.data();
    if (!(one instanceof Uint8Array)) return one;
    const all = new Uint8Array(rows * one.byteLength);
    for (let row = 0; row < rows; row++) all.set(one, row * one.byteLength);
    return all;
  };
  return { name, type, shape: [rows, 1], data };
}

/** [N, K] from the tensor weight_shape. */
function readShape(given: CheckpointTensor): [rows: number, cols: number] {
  const tensor = new CheckedTensor(OPERATOR, 'weightShape', given)
    .expectType('i32', 'i64')
    .expectShape([2], '[2]');
  const lengths =
    tensor.type === 'i32' ? Array.from(tensor.int32()) : Array.from(tensor.int64(), Number);
  const [rows, cols] = lengths as [number, number];
  if (!lengths.every((length) => Number.isSafeInteger(length) && length >= 1)) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${tensor.what} holds [${rows}, ${cols}], expected lengths of at least 1`,
    );
  }
  return [rows, cols];
}

/** [N, G] zero points of codes, that is plus 2^(bits-1). */
function readZeros(
  given: CheckpointTensor | undefined,
  rows: number,
  groups: Groups,
  bits: number,
): Uint8Array | undefined {
  if (given === undefined) return undefined;
  const tensor = new CheckedTensor(OPERATOR, 'weightZeroPoint', given).expectType('i32', 'i8');
  const zeros = new Uint8Array(rows * groups.count);
  const middle = 2 ** (bits - 1);
  if (tensor.type === 'i8') {
    const values = tensor.expectShape([rows, groups.count], '[N, groups]').int8();
    const bad = values.findIndex((value) => value < -middle || value >= middle);
    if (bad >= 0) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `${tensor.what}[${bad}] is ${values[bad]}, expected ${-middle} to ${middle - 1} (${bits} bits)`,
      );
    }
    for (let i = 0; i < zeros.length; i++) zeros[i] = (values[i] as number) + middle;
    return zeros;
  }
  const wordCodes = Math.floor(32 / bits);
  const words = tensor
    .expectShape([Math.ceil(rows / wordCodes), groups.count], `[N / ${wordCodes}, groups]`)
    .int32();
  for (let row = 0; row < rows; row++) {
    const line = Math.floor(row / wordCodes) * groups.count;
    const shift = (row % wordCodes) * bits;
    for (let group = 0; group < groups.count; group++) {
      const code = ((words[line + group] as number) >> shift) & ((1 << bits) - 1);
      zeros[row * groups.count + group] = code;
    }
  }
  return zeros;
}

function readOrder(
  given: CheckpointTensor | undefined,
  cols: number,
  groups: Groups,
): Int32Array | undefined {
  if (given === undefined) return undefined;
  const tensor = new CheckedTensor(OPERATOR, 'weightGIdx', given)
    .expectType('i32')
    .expectShape([cols], '[K]');
  const indices = tensor.int32();
  // What the quantizer initializes it with, and leaves there when it keeps the order of columns.
  if (indices.every((group) => group === -1)) return undefined;
  return orderColumns(tensor, indices, groups);
}

/** Writes `count` codes, as many in each word as it holds whole. */
function unpackWords(
  words: Int32Array,
  from: number,
  bits: number,
  codes: Uint8Array,
  to: number,
  count: number,
): void {
  const mask = (1 << bits) - 1;
  const last = 32 - bits;
  let at = to;
  const end = to + count;
  for (let word = from; at < end; word++) {
    const value = words[word] as number;
    for (let shift = 0; shift <= last && at < end; shift += bits) {
      codes[at++] = (value >> shift) & mask;
    }
  }
}
