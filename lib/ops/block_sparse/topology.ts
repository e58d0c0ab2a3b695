import { checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { checkNotRecording } from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';

/**
 * Where the blocks of a block-sparse matrix stand: by rows (compressed, CSR), with the row of each block (COO), and in
 * the order of columns, so that neither a product nor one with the transpose searches (MegaBlocks, Gale et al. 2022).
 * Blocks are numbered by rows, then by columns. A row block covers rows `rowStarts[r]` to `rowStarts[r + 1] - 1`, at
 * most `blockSize` of them, a column block likewise: the last block of an expert may be smaller, so that neither
 * tokens nor the width of an expert are padded.
 */
export interface Topology {
  /** Rows and columns of a block at most. */
  readonly blockSize: number;
  /** Number of blocks. */
  readonly blocks: number;
  /** Rows of the matrix. */
  readonly rows: number;
  /** Columns of the matrix. */
  readonly columns: number;
  /** Shape `[row blocks + 1]`: the first row of each row block. */
  readonly rowStarts: Tensor<'i32'>;
  /** Shape `[column blocks + 1]`: the first column of each column block. */
  readonly columnStarts: Tensor<'i32'>;
  /** Shape `[row blocks + 1]`: row block r has blocks `offsets[r]` to `offsets[r + 1] - 1`. */
  readonly offsets: Tensor<'i32'>;
  /** Shape `[blocks]`: the column block of each block. */
  readonly columnIndices: Tensor<'i32'>;
  /** Shape `[blocks]`: the row block of each block. */
  readonly rowIndices: Tensor<'i32'>;
  /** Shape `[column blocks + 1]`: column block c has `transposeIndices` from `transposeOffsets[c]` on. */
  readonly transposeOffsets: Tensor<'i32'>;
  /** Shape `[blocks]`: numbers of blocks in order of columns, then of rows. */
  readonly transposeIndices: Tensor<'i32'>;
}

/** A block-sparse matrix. */
export interface BlockSparseMatrix<D extends FloatDType = FloatDType> {
  readonly topology: Topology;
  /** Shape `[blocks, blockSize, blockSize]`; of a block that is smaller, the first rows and columns. */
  readonly values: Tensor<D>;
}

const sizes = [16, 32, 64, 128];

/**
 * The topology of a mixture's hidden layer: rows of expert e (those that {@link moePermute} gave it) meet the `ffn`
 * columns of expert e, columns `e * ffn` on of the experts' matrices one above the other.
 *
 * @param offsets [experts + 1] where the rows of each expert begin, as {@link moePermute} gives them
 * @param ffn width of an expert; any number
 * @param blockSize 16, 32, 64 or 128
 * @throws `BL_OUT_OF_RANGE`, `BL_INVALID_ARGUMENT` (offsets of a tensor within a sequence, too), `BL_INVALID_SHAPE`,
 *   `BL_OUT_OF_MEMORY`
 *
 * @example
 * ```ts
 * const { rows, offsets } = moePermute(x, indices, { experts: 8 });
 * const h = sdd(rows, up, topology(offsets, 1408, 64), { transposeB: true }); // up [8 * 1408, hidden]
 * ```
 */
export function topology(
  offsets: Tensor<'i32'> | readonly number[],
  ffn: number,
  blockSize: number,
): Topology {
  const bounds = boundsOf(offsets);
  if (!sizes.includes(blockSize)) {
    refuse('blockSize', described(blockSize), sizes.join(', '));
  }
  const experts = bounds.length - 1;
  if (!Number.isInteger(ffn) || ffn < 0 || experts * ffn >= 2 ** 31) {
    refuse('ffn', described(ffn), 'a whole number, and experts * ffn below 2147483648');
  }
  const across = Math.ceil(ffn / blockSize); // column blocks of an expert
  const down = bounds
    .slice(1)
    .map((end, e) => Math.ceil((end - (bounds[e] as number)) / blockSize));
  const rowBlocks = down.reduce((sum, own) => sum + own, 0);
  if (rowBlocks * across >= 2 ** 31) {
    refuse('blocks', String(rowBlocks * across), 'below 2147483648');
  }
  const list = (length: number) => Tensor.zeros('i32', [length]).data.subarray(0, length);
  const [rowStarts, offsetsOut] = [list(rowBlocks + 1), list(rowBlocks + 1)];
  const [columnIndices, rowIndices] = [list(rowBlocks * across), list(rowBlocks * across)];
  const columnStarts = list(experts * across + 1);
  const transposeOffsets = list(experts * across + 1);
  const transposeIndices = list(rowBlocks * across);
  let [row, block, column, place] = [0, 0, 0, 0];
  for (let e = 0; e < experts; e++) {
    const firstBlock = block;
    const rows = down[e] as number;
    for (let r = 1; r <= rows; r++, row++) {
      for (let c = 0; c < across; c++, block++) {
        columnIndices[block] = e * across + c;
        rowIndices[block] = row;
      }
      offsetsOut[row + 1] = block;
      const end = (bounds[e] as number) + r * blockSize;
      rowStarts[row + 1] = Math.min(end, bounds[e + 1] as number);
    }
    for (let c = 0; c < across; c++, column++) {
      for (let r = 0; r < rows; r++) transposeIndices[place++] = firstBlock + r * across + c;
      transposeOffsets[column + 1] = place;
      columnStarts[column + 1] = e * ffn + Math.min((c + 1) * blockSize, ffn);
    }
  }
  const tensor = (values: Int32Array) => new Tensor('i32', values, [values.length]);
  return Object.freeze({
    blockSize,
    blocks: rowBlocks * across,
    rows: bounds[experts] as number,
    columns: experts * ffn,
    rowStarts: tensor(rowStarts),
    columnStarts: tensor(columnStarts),
    offsets: tensor(offsetsOut),
    columnIndices: tensor(columnIndices),
    rowIndices: tensor(rowIndices),
    transposeOffsets: tensor(transposeOffsets),
    transposeIndices: tensor(transposeIndices),
  });
}

function refuse(name: string, actual: string, expected: string): never {
  throw argumentError('BL_OUT_OF_RANGE', `topology: ${name} is ${actual}, expected ${expected}`);
}

function boundsOf(offsets: Tensor<'i32'> | readonly number[]): number[] {
  if (!Array.isArray(offsets)) {
    checkNotRecording('topology');
    checkTensor('topology', 'offsets', offsets);
  }
  const bounds = [...(Array.isArray(offsets) ? offsets : (offsets as Tensor).toArray())];
  if (bounds.length === 0) {
    throw argumentError('BL_INVALID_SHAPE', 'topology: offsets has 0 entries, expected at least 1');
  }
  for (let e = 0; e < bounds.length; e++) {
    const least = e === 0 ? 0 : (bounds[e - 1] as number);
    const most = e === 0 ? 0 : 2 ** 31 - 1;
    const value = bounds[e] as number;
    if (!(Number.isInteger(value) && value >= least && value <= most)) {
      refuse(`offsets[${e}]`, described(value), `${least} to ${most}`);
    }
  }
  return bounds;
}
