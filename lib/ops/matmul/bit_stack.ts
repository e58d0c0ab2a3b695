import { argumentError } from '../../errors.js';
import type { QuantizedTensor } from '../../quantized_tensor.js';
import { type AsyncOptions, sequence } from '../../run.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import { type SumOptions, sumOfProducts } from './accumulate.js';
import type { OutputDType } from './options.js';

/** One residual block: `sum_r u_r * (S (v_r * x))`, signs times a matrix of rank R. */
export interface BitStackBlock {
  /** S [N, K], e.g. of format u1_row with scales of 1. */
  signs: QuantizedTensor;
  /** u [R, N] */
  u: Tensor<'f32'>;
  /** v [R, K] */
  v: Tensor<'f32'>;
}

/**
 * A matrix as a stack of residual blocks, of which as many are in memory as there is room for (BitStack, Wang et al.
 * 2025): `W ~ sum_i S_i * (u_i^T v_i)`, the elementwise product of signs and a matrix of low rank. Each block makes
 * what those before it lack smaller.
 *
 * @example
 * ```ts
 * const layer = new BitStack(blocks.length, (i) => blocks[i]);
 * layer.load(4); // 4 of them
 * const y = layer.forward(x); // [M, K] -> [M, N]
 * layer.load(2); // memory is short: the last two are given back
 * ```
 */
export class BitStack {
  readonly #blocks: BitStackBlock[] = [];

  /**
   * @param total how many blocks there are
   * @param read gives block i; called by {@link load} for blocks that are not in memory
   */
  constructor(
    readonly total: number,
    private readonly read: (index: number) => BitStackBlock,
  ) {
    if (!Number.isSafeInteger(total) || total < 1) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `BitStack: total is ${total}, expected at least 1`,
      );
    }
  }

  /** Blocks in memory. */
  get loaded(): number {
    return this.#blocks.length;
  }

  /** Bytes of the blocks in memory. */
  get bytes(): number {
    return this.#blocks.reduce(
      (sum, { signs, u, v }) =>
        sum + signs.bytes.byteLength + u.bytes.byteLength + v.bytes.byteLength,
      0,
    );
  }

  /**
   * Brings the first `count` blocks into memory and lets go of the others.
   *
   * @throws `BL_OUT_OF_RANGE`; `BL_INVALID_SHAPE` if a block does not fit the first
   */
  load(count: number): void {
    if (!Number.isSafeInteger(count) || count < 0 || count > this.total) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `BitStack: count is ${count}, expected 0 to ${this.total} (= total)`,
      );
    }
    while (this.#blocks.length > count) dispose(this.#blocks.pop() as BitStackBlock);
    while (this.#blocks.length < count) {
      const index = this.#blocks.length;
      const block = this.read(index);
      check(block, index, this.#blocks[0] ?? block);
      this.#blocks.push(block);
    }
  }

  /**
   * @param x [..., M, K], f32, f16 or bf16
   * @returns [..., M, N]: `options.out`, or a new f32 tensor
   * @throws `BL_INVALID_ARGUMENT` if no block is loaded; else as `matmul`
   */
  forward<D extends OutputDType = 'f32'>(
    x: Tensor<FloatDType>,
    options: SumOptions<D> = {},
  ): Tensor<D> {
    if (this.loaded === 0) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        'BitStack: no block is loaded, expected load() first',
      );
    }
    const terms = this.#blocks.flatMap(({ signs, u, v }) =>
      Array.from({ length: u.shape[0] as number }, (_, r) => ({
        weights: signs,
        rowScale: row(u, r),
        columnScale: row(v, r),
      })),
    );
    return sumOfProducts(x, terms, options);
  }

  /** {@link forward} on a worker thread. */
  forwardAsync<D extends OutputDType = 'f32'>(
    x: Tensor<FloatDType>,
    options: SumOptions<D> & AsyncOptions = {},
  ): Promise<Tensor<D>> {
    const { signal, ...rest } = options;
    const body = (): Tensor<D> => this.forward(x, rest as SumOptions<D>);
    return sequence(body, signal === undefined ? {} : { signal });
  }

  /** Lets go of all blocks. */
  dispose(): void {
    this.load(0);
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

function row(matrix: Tensor<'f32'>, r: number): Tensor<'f32'> {
  return matrix.slice(r, r + 1).reshape([matrix.shape[1] as number]);
}

function dispose({ signs, u, v }: BitStackBlock): void {
  signs.dispose();
  u.dispose();
  v.dispose();
}

function check({ signs, u, v }: BitStackBlock, index: number, first: BitStackBlock): void {
  const expect = (name: string, shape: readonly number[], expected: readonly number[]): void => {
    if (shape.length === expected.length && shape.every((size, i) => size === expected[i])) return;
    throw argumentError(
      'BL_INVALID_SHAPE',
      `BitStack: blocks[${index}].${name} has shape [${shape}], expected [${expected}]`,
    );
  };
  expect('signs', signs.shape, first.signs.shape);
  const rank = u.shape[0] ?? 0;
  if (rank < 1) throw argumentError('BL_INVALID_SHAPE', `BitStack: blocks[${index}].u has no rows`);
  expect('u', u.shape, [rank, signs.rows]);
  expect('v', v.shape, [rank, signs.cols]);
}
