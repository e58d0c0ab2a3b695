import {
  assemble,
  checkBits,
  cutGroups,
  type GroupOptions,
  type ImportedWeight,
  readScales,
} from './checkpoint_groups.js';
import { CheckedTensor, type CheckpointTensor } from './checkpoint_tensor.js';

/** The tensors of a layer that AutoAWQ quantized, version "gemm"; G groups of columns. */
export interface AwqTensors {
  /** i32 [K, N / 8]: a word holds the codes of 8 outputs, in the order 0 2 4 6 1 3 5 7 from its low end. */
  readonly qweight: CheckpointTensor;
  /** i32 [G, N / 8]: zero points as they are, in the same order. */
  readonly qzeros: CheckpointTensor;
  /** f16, bf16 or f32 [G, N]. */
  readonly scales: CheckpointTensor;
}

const OPERATOR = 'importAwq';
const BITS = 4;
const WORD_CODES = 8;
// The output, of the 8 in a word, whose code stands i nibbles from the low end.
const NIBBLE_OUTPUT = [0, 2, 4, 6, 1, 3, 5, 7] as const;

/**
 * Takes over a 4-bit weight matrix in AutoAWQ's "gemm" layout, without loss.
 *
 * @returns [N, K] in `u4z_g<groupSize>`, or `u4` if all zero points are 8; `_bf16` for bf16 scales
 * @throws as `importGptq`
 *
 * @example
 * const at = (name: string) => file.tensors.get(`model.layers.0.mlp.up_proj.${name}`)!;
 * const { weight } = importAwq(
 *   { qweight: at('qweight'), qzeros: at('qzeros'), scales: at('scales') },
 *   { bits: 4, groupSize: 128 },
 * );
 */
export function importAwq(tensors: AwqTensors, options: GroupOptions): ImportedWeight {
  checkBits(OPERATOR, options.bits, [BITS]);
  const qweight = new CheckedTensor(OPERATOR, 'qweight', tensors.qweight)
    .expectType('i32')
    .expectShape([undefined, undefined], '[K, N / 8]');
  const cols = qweight.length(0);
  const words = qweight.length(1);
  const rows = words * WORD_CODES;
  const groups = cutGroups(OPERATOR, options.groupSize, cols);
  const scales = new CheckedTensor(OPERATOR, 'scales', tensors.scales).expectShape(
    [groups.count, rows],
    `[groups of ${groups.size} in K = ${cols}, N]`,
  );
  const qzeros = new CheckedTensor(OPERATOR, 'qzeros', tensors.qzeros)
    .expectType('i32')
    .expectShape([groups.count, words], '[groups, N / 8]');

  const packed = qweight.int32();
  const packedZeros = qzeros.int32();
  const zeros = new Uint8Array(packedZeros.length * WORD_CODES);
  for (let word = 0; word < packedZeros.length; word++) {
    unpackWord(packedZeros[word] as number, zeros, word * WORD_CODES, 1);
  }
  return assemble({
    rows,
    cols,
    bits: BITS,
    groups,
    scales: readScales(scales),
    zeros,
    zeroOffset: 0,
    rowStride: 1,
    groupStride: rows,
    columnOrder: undefined,
    unpack(firstRow, count, codes) {
      unpackColumns(packed, words, firstRow / WORD_CODES, count / WORD_CODES, codes);
    },
  });
}

/** Codes of packed[K, words], `tileWords` words of each line, as codes[8 * tileWords, K]. */
function unpackColumns(
  packed: Int32Array,
  words: number,
  firstWord: number,
  tileWords: number,
  codes: Uint8Array,
): void {
  const cols = packed.length / words;
  for (let col = 0; col < cols; col++) {
    const line = col * words + firstWord;
    for (let word = 0; word < tileWords; word++) {
      unpackWord(packed[line + word] as number, codes, word * WORD_CODES * cols + col, cols);
    }
  }
}

/** Writes the 8 codes of a word to codes[at + output * stride]. */
function unpackWord(word: number, codes: Uint8Array, at: number, stride: number): void {
  for (let i = 0; i < WORD_CODES; i++) {
    codes[at + (NIBBLE_OUTPUT[i] as number) * stride] = (word >> (BITS * i)) & 15;
  }
}
