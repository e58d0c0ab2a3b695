import { argumentError } from './errors.js';
import { formatInfo, type QuantizedTensor } from './quantized_tensor.js';
import { Tensor } from './tensor.js';

/** The columns of one width. */
export interface MixedSegment {
  readonly width: number;
  /** [N, columns of this width] */
  readonly weights: QuantizedTensor;
  /** Where they stand in the matrix: [columns of this width]. */
  readonly columns: Tensor<'i32'>;
}

/**
 * A matrix [rows, cols] whose groups of columns have widths of their own: a map of widths, and for each width that
 * occurs a matrix of its columns side by side, whose planes lie as those of any matrix. `quantizeMixed` makes one,
 * `packWeights` brings it into layout lanes16, `savePacked` keeps it in a file.
 */
export class MixedTensor {
  readonly rows: number;
  readonly cols: number;
  /** Bits of each group of `groupSize` columns. */
  readonly widths: Uint8Array;
  /** A part for each width that occurs, narrowest first. */
  readonly segments: readonly MixedSegment[];

  /**
   * @param shape [rows, cols]
   * @param groupSize columns that share a width; the last group may have fewer
   * @param widths [ceil(cols / groupSize)], 1 to 8
   * @param matrices one for each width that occurs, narrowest first, of `rows` rows, with the columns of that width in
   *   their order; their formats have as many bits, in any layout
   * @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE` (a width, `groupSize`), `BL_INVALID_FORMAT`
   */
  constructor(
    shape: readonly [rows: number, cols: number],
    readonly groupSize: number,
    widths: Uint8Array,
    matrices: readonly QuantizedTensor[],
  ) {
    [this.rows, this.cols] = shape;
    this.widths = Uint8Array.from(widths);
    const present = columnsByWidth('MixedTensor', this.cols, groupSize, this.widths);
    if (matrices.length !== present.size) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `MixedTensor: there are ${matrices.length} matrices, expected ${present.size} (one for each width)`,
      );
    }
    this.segments = [...present].map(([width, columns], i) => {
      const weights = matrices[i] as QuantizedTensor;
      const { bits } = formatInfo(weights.format);
      if (bits !== width) {
        throw argumentError(
          'BL_INVALID_FORMAT',
          `MixedTensor: matrices[${i}] is of format ${weights.format}, expected one of ${width} bits`,
        );
      }
      if (weights.rows !== this.rows || weights.cols !== columns.length) {
        throw argumentError(
          'BL_INVALID_SHAPE',
          `MixedTensor: matrices[${i}] has shape [${weights.shape}], expected [${this.rows},${columns.length}] (columns of ${width} bits)`,
        );
      }
      return { width, weights, columns: new Tensor('i32', columns, [columns.length]) };
    });
  }

  get shape(): readonly [rows: number, cols: number] {
    return [this.rows, this.cols];
  }

  /** Bits per weight, scales and column numbers included. */
  get bits(): number {
    const bytes = this.segments.reduce(
      (sum, { weights, columns }) => sum + weights.bytes.byteLength + columns.bytes.byteLength,
      0,
    );
    return (bytes * 8) / Math.max(this.rows * this.cols, 1);
  }

  /** Lets go of the memory. */
  dispose(): void {
    for (const { weights, columns } of this.segments) {
      weights.dispose();
      columns.dispose();
    }
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Whether `value` is a MixedTensor, of this or another copy of the package. */
export function isMixedTensor(value: unknown): value is MixedTensor {
  return (
    typeof value === 'object' &&
    value !== null &&
    (value as MixedTensor).widths !== undefined &&
    Array.isArray((value as MixedTensor).segments)
  );
}

/**
 * The columns of each width that occurs, narrowest first.
 *
 * @param widths [ceil(cols / groupSize)], 1 to 8
 * @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE`
 */
export function columnsByWidth(
  op: string,
  cols: number,
  groupSize: number,
  widths: Uint8Array,
): Map<number, Int32Array> {
  if (!Number.isSafeInteger(groupSize) || groupSize < 1) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: groupSize is ${groupSize}, expected a whole number of at least 1`,
    );
  }
  const groups = Math.ceil(cols / groupSize);
  if (widths.length !== groups) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: widths has ${widths.length} entries, expected ${groups} (= ceil(cols / groupSize))`,
    );
  }
  const bad = widths.findIndex((width) => width < 1 || width > 8);
  if (bad >= 0) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: widths[${bad}] is ${widths[bad]}, expected 1 to 8`,
    );
  }
  const found = new Map<number, Int32Array>();
  for (const width of [...new Set(widths)].sort((a, b) => a - b)) {
    const groupsOf = [...widths.keys()].filter((group) => widths[group] === width);
    const end = (group: number): number => Math.min((group + 1) * groupSize, cols);
    const columns = new Int32Array(
      groupsOf.reduce((sum, group) => sum + end(group) - group * groupSize, 0),
    );
    let at = 0;
    for (const group of groupsOf) {
      for (let column = group * groupSize; column < end(group); column++) columns[at++] = column;
    }
    found.set(width, columns);
  }
  return found;
}
