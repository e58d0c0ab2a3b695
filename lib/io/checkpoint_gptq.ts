import { argumentError, BitloomError } from '../errors.js';
import {
  assemble,
  checkBits,
  cutGroups,
  type GroupOptions,
  type ImportedWeight,
  orderColumns,
  readScales,
  TILE_ROWS,
  unpackStream,
} from './checkpoint_groups.js';
import { CheckedTensor, type CheckpointTensor, shown } from './checkpoint_tensor.js';

/** The tensors of a layer that GPTQ (AutoGPTQ, GPTQModel) quantized; G groups of columns. */
export interface GptqTensors {
  /** i32 [K * bits / 32, N]: down each column a stream of bits with its K codes. */
  readonly qweight: CheckpointTensor;
  /** i32 [G, ceil(N * bits / 32)]: along each row a stream of bits with N zero points. */
  readonly qzeros: CheckpointTensor;
  /** f16, bf16 or f32 [G, N]. */
  readonly scales: CheckpointTensor;
  /** i32 [K], the group of each column; default: columns in order. */
  readonly gIdx?: CheckpointTensor | undefined;
}

/** Options of {@link importGptq}: `bits` is 2, 3, 4 or 8. */
export interface GptqOptions extends GroupOptions {
  /**
   * How zero points are stored: 1 (default, `checkpoint_format` "gptq") as one less than they are, so that a stored
   * 2^bits - 1 means 2^bits, as in vLLM; 2 ("gptq_v2") as they are.
   */
  readonly version?: 1 | 2 | undefined;
}

const OPERATOR = 'importGptq';

/**
 * Takes over a weight matrix that GPTQ quantized, without loss: codes, zero points and scales stay what they are.
 * A matrix quantized in the order of activations (`desc_act`) has its columns sorted by group, see
 * {@link ImportedWeight.columnOrder}.
 *
 * @returns [N, K] in `u<bits>z_g<groupSize>`, or `u<bits>` if all zero points are 2^(bits-1); `_bf16` for bf16 scales
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`, `BL_INVALID_ARGUMENT`; `BL_OUT_OF_RANGE` for a group that is not
 * there; `BL_NON_FINITE` for such scales; `BL_UNSUPPORTED` for other bits and group sizes, for groups of unequal
 * length, and for f32 scales that neither f16 nor bf16 holds
 *
 * @example
 * const at = (name: string) => file.tensors.get(`model.layers.0.mlp.up_proj.${name}`)!;
 * const { weight, columnOrder } = importGptq(
 *   { qweight: at('qweight'), qzeros: at('qzeros'), scales: at('scales'), gIdx: at('g_idx') },
 *   { bits: 4, groupSize: 128 },
 * );
 */
export function importGptq(tensors: GptqTensors, options: GptqOptions): ImportedWeight {
  const bits = checkBits(OPERATOR, options.bits, [2, 3, 4, 8]);
  const { version = 1 } = options;
  if (version !== 1 && version !== 2) {
    throw new BitloomError(
      'BL_UNSUPPORTED',
      `${OPERATOR}: version is ${shown(version)}, expected 1 or 2`,
    );
  }
  const qweight = new CheckedTensor(OPERATOR, 'qweight', tensors.qweight)
    .expectType('i32')
    .expectShape([undefined, undefined], '[K * bits / 32, N]');
  const words = qweight.length(0);
  const rows = qweight.length(1);
  const cols = (words * 32) / bits;
  if (!Number.isSafeInteger(cols)) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${qweight.what} has shape [${qweight.shape.join(', ')}], expected shape[0] to be a multiple of ${bits} (${bits} bits)`,
    );
  }
  const groups = cutGroups(OPERATOR, options.groupSize, cols);
  const scales = new CheckedTensor(OPERATOR, 'scales', tensors.scales).expectShape(
    [groups.count, rows],
    `[groups of ${groups.size} in K = ${cols}, N]`,
  );
  const lineWords = Math.ceil((rows * bits) / 32);
  const qzeros = new CheckedTensor(OPERATOR, 'qzeros', tensors.qzeros)
    .expectType('i32')
    .expectShape([groups.count, lineWords], '[groups, N * bits / 32]');
  const gIdx =
    tensors.gIdx === undefined
      ? undefined
      : new CheckedTensor(OPERATOR, 'gIdx', tensors.gIdx)
          .expectType('i32')
          .expectShape([cols], '[K]');

  const packed = qweight.int32();
  const columns = new Int32Array(Math.min(TILE_ROWS, rows) * words);
  return assemble({
    rows,
    cols,
    bits,
    groups,
    scales: readScales(scales),
    zeros: readZeros(qzeros.int32(), rows, bits),
    zeroOffset: version === 1 ? 1 : 0,
    rowStride: 1,
    groupStride: rows,
    columnOrder: gIdx && orderColumns(gIdx, gIdx.int32(), groups),
    unpack(firstRow, count, codes) {
      transpose(packed, rows, firstRow, count, columns);
      for (let row = 0; row < count; row++) {
        unpackStream(columns, row * words, bits, cols, codes, row * cols);
      }
    },
  });
}

/** `count` columns of packed[words, N] as columns[count, words]. */
function transpose(
  packed: Int32Array,
  rows: number,
  firstRow: number,
  count: number,
  columns: Int32Array,
): void {
  const words = packed.length / rows;
  for (let word = 0; word < words; word++) {
    const line = word * rows + firstRow;
    for (let row = 0; row < count; row++) {
      columns[row * words + word] = packed[line + row] as number;
    }
  }
}

/** [G, N] codes from [G, words of a line]. */
function readZeros(packed: Int32Array, rows: number, bits: number): Uint8Array {
  const lineWords = Math.ceil((rows * bits) / 32);
  const groups = packed.length / lineWords;
  const zeros = new Uint8Array(groups * rows);
  for (let group = 0; group < groups; group++) {
    unpackStream(packed, group * lineWords, bits, rows, zeros, group * rows);
  }
  return zeros;
}
