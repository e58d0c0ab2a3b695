import { checkNumber, checkOptions, checkTensor } from '../../arguments.js';
import {
  type AsyncOptions,
  type Call,
  optionalTensorValues,
  type RunOptions,
  run,
  runAsync,
  runValue,
  tensorValues,
} from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';

/** Options of {@link moePermute}. */
export interface MoEPermuteOptions<D extends FloatDType = FloatDType> extends RunOptions {
  /** Number of experts. */
  experts: number;
  /** Each expert's rows begin at a multiple of it. Default 1: nothing is padded. */
  blockSize?: number;
  /** Shape `[tokens, topK]`: multiplies each row. Default: rows as they are. */
  weights?: Tensor<'f32'>;
  /** Where the result goes. Default: new tensors. */
  out?: PermutedRows<D>;
}

/** Rows of tokens, gathered by expert. */
export interface PermutedRows<D extends FloatDType = FloatDType> {
  /** Shape `[rows, hidden]`: rows of each expert, one after the other. */
  rows: Tensor<D>;
  /** Shape `[experts + 1]`: expert e has rows `offsets[e]` to `offsets[e + 1] - 1`. */
  offsets: Tensor<'i32'>;
  /** Shape `[rows]`: the route of a row, `token * topK + slot`, or -1. */
  order: Tensor<'i32'>;
  /** Shape `[tokens, topK]`: the row of a route, or -1. */
  inverse: Tensor<'i32'>;
}

const known = new Set(['experts', 'blockSize', 'weights', 'out', 'isa', 'threads', 'stream']);

/** Rows that `routes` routes take at most. */
function rowsAtMost(routes: number, experts: number, blockSize: number): number {
  return routes + Math.min(routes, experts) * (blockSize - 1);
}

/**
 * Gathers rows of tokens by expert, in order of tokens within an expert, without padding and without dropping:
 * `rows[inverse[t, s]] = x[t]`, or `weights[t, s] * x[t]`. With a block size, experts begin at its multiples.
 * An index of -1 goes nowhere. There are `tokens * topK` rows (with a block size, as many as it may take at most);
 * those without a route are zero.
 *
 * @param x [tokens, hidden] f32, f16 or bf16
 * @param indices [tokens, topK]: experts, as {@link moeRoute} gives them, or -1
 * @throws `BL_OUT_OF_RANGE` (an index below -1 or not below `experts`), `BL_INVALID_SHAPE`, `BL_INVALID_DTYPE`,
 *   `BL_INVALID_ARGUMENT`, before anything is written
 *
 * @example
 * ```ts
 * const { indices, weights } = moeRoute(logits, { topK: 2 });
 * const { rows, offsets, inverse } = moePermute(x, indices, { experts: 8 });
 * const y = moeUnpermute(groupedMatmul(rows, experts, offsets), inverse, { weights });
 * ```
 */
export function moePermute<D extends FloatDType>(
  x: Tensor<D>,
  indices: Tensor<'i32'>,
  options: MoEPermuteOptions<D>,
): PermutedRows<D> {
  return run(preparePermute(x, indices, options));
}

/** {@link moePermute} on a worker thread. */
export function moePermuteAsync<D extends FloatDType>(
  x: Tensor<D>,
  indices: Tensor<'i32'>,
  options: MoEPermuteOptions<D> & AsyncOptions,
): Promise<PermutedRows<D>> {
  return runAsync(() => preparePermute(x, indices, options), options);
}

function preparePermute<D extends FloatDType>(
  x: Tensor<D>,
  indices: Tensor<'i32'>,
  options: MoEPermuteOptions<D>,
): Call<PermutedRows<D>> {
  const op = 'moePermute';
  checkTensor(op, 'x', x);
  checkTensor(op, 'indices', indices);
  checkOptions(op, options, known);
  const { experts, blockSize = 1 } = options;
  checkNumber(
    op,
    'experts',
    experts,
    'a whole number',
    (n) => Number.isInteger(n) && n >= 0 && n < 2 ** 31,
  );
  checkNumber(
    op,
    'blockSize',
    blockSize,
    '1 to 65536',
    (n) => Number.isInteger(n) && n >= 1 && n <= 65536,
  );
  const weights = optionalTensorValues(op, 'weights', options.weights);
  const { out } = options;
  const count = rowsAtMost(
    indices.shape.reduce((a, b) => a * b, 1),
    experts,
    blockSize,
  );
  const rows = out?.rows ?? Tensor.empty(x.dtype, [count, x.shape.at(-1) ?? 0], x.device);
  const offsets = out?.offsets ?? Tensor.empty('i32', [experts + 1], x.device);
  const order = out?.order ?? Tensor.empty('i32', [rows.shape[0] ?? 0], x.device);
  const inverse = out?.inverse ?? Tensor.empty('i32', indices.shape, x.device);
  checkTensor(op, 'out.rows', rows);
  checkTensor(op, 'out.offsets', offsets);
  checkTensor(op, 'out.order', order);
  checkTensor(op, 'out.inverse', inverse);
  checkNumber(
    op,
    'out.offsets.shape[0]',
    offsets.shape[0],
    `${experts + 1} (= experts + 1)`,
    (n) => n === experts + 1,
  );
  return {
    op,
    values: [
      ...tensorValues(x),
      ...tensorValues(indices),
      ...weights,
      ...tensorValues(rows),
      ...tensorValues(offsets),
      ...tensorValues(order),
      ...tensorValues(inverse),
      blockSize,
      runValue(options),
    ],
    result: { rows: rows as Tensor<D>, offsets, order, inverse },
  };
}
