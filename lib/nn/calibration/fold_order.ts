// A ChannelOrder folded into the projections of an attention layer.
import { argumentError } from '../../errors.js';
import { formats } from '../../generated.js';
import { QuantizedTensor, weightsBytes } from '../../quantized_tensor.js';
import { Tensor } from '../../tensor.js';
import type { ModelConfig } from '../config.js';
import { type ChannelOrder, pairChannels } from './channel_order.js';

/** What becomes of a layer's weights: place p takes what stood at `...[p]`. */
export interface FoldedOrder {
  /** [headDim], of the norms of queries and keys. */
  readonly head: Int32Array;
  /** Rows of the projections. */
  readonly query: Int32Array;
  readonly key: Int32Array;
  readonly value: Int32Array;
  /** Columns of the output projection. */
  readonly output: Int32Array;
}

/** @throws `BL_INVALID_SHAPE`, `BL_INVALID_ARGUMENT` for what is no permutation, or takes pairs apart */
export function foldOrder(layer: number, order: ChannelOrder, config: ModelConfig): FoldedOrder {
  const { numHeads, numKvHeads, headDim, valueDim } = config;
  const name = `load: channelOrders[${layer}]`;
  checkPermutation(`${name}.keys`, order?.keys, headDim);
  checkPairs(`${name}.keys`, order.keys, config.rope);
  if (order.values?.length !== numKvHeads) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${name}.values.length is ${order.values?.length}, expected ${numKvHeads} (= numKvHeads)`,
    );
  }
  for (const [g, values] of order.values.entries()) {
    checkPermutation(`${name}.values[${g}]`, values, valueDim);
  }
  const ofHeads = (heads: number, dim: number, of: (head: number) => Int32Array): Int32Array =>
    Int32Array.from({ length: heads * dim }, (_, i) => {
      const head = Math.floor(i / dim);
      return head * dim + (of(head)[i % dim] as number);
    });
  const values = (g: number): Int32Array => order.values[g] as Int32Array;
  return {
    head: order.keys,
    query: ofHeads(numHeads, headDim, () => order.keys),
    key: ofHeads(numKvHeads, headDim, () => order.keys),
    value: ofHeads(numKvHeads, valueDim, values),
    output: ofHeads(numHeads, valueDim, (h) => values(Math.floor((h * numKvHeads) / numHeads))),
  };
}

/**
 * Divisors of the frequencies with which pairs that have moved turn as they did: place p takes the angle of pair i, so that
 * `theta^(-2p / rotaryDim) / factor[p] = theta^(-2i / rotaryDim) / given[i]`. Rounded to f32: angles move by 6e-8 of themselves.
 *
 * @throws `BL_UNSUPPORTED` for scalings by wavelength (llama3, yarn), which go by the place
 */
export function movedFrequencies(
  order: ChannelOrder,
  { mode, theta, rotaryDim, scaling }: ModelConfig['rope'],
  given: Tensor<'f32'> | undefined,
): Tensor<'f32'> {
  if (scaling !== undefined && scaling.type !== 'linear') {
    throw argumentError(
      'BL_UNSUPPORTED',
      `load: channelOrders with rope scaling ${scaling.type}, expected none or linear`,
    );
  }
  const half = rotaryDim / 2;
  const [first] = pairChannels(mode, half);
  const factors = Float32Array.from({ length: half }, (_, place) => {
    const channel = order.keys[first(place)] as number;
    const pair = mode === 'half' ? channel % half : Math.floor(channel / 2);
    return theta ** ((2 * (pair - place)) / rotaryDim) * ((given?.data[pair] as number) ?? 1);
  });
  return new Tensor('f32', factors, [half]);
}

/** Row p of the result is row `order[p]`, for as many as there are: bytes are moved, nothing is rounded. */
export function rowsInOrder(matrix: QuantizedTensor, order: Int32Array): QuantizedTensor {
  const { format, cols } = matrix;
  const result = emptyLike(matrix, order.length);
  const bytes = weightsBytes(format, 1, cols);
  for (const [p, row] of order.entries()) {
    result.bytes.set(matrix.bytes.subarray(row * bytes, (row + 1) * bytes), p * bytes);
  }
  return result;
}

/** The same of columns where each is stored by itself (f32, f16, bf16); undefined for other formats. */
export function columnsInOrder(
  matrix: QuantizedTensor,
  order: Int32Array,
): QuantizedTensor | undefined {
  const { rows, cols, format } = matrix;
  const info = formats[format];
  if (info.kind !== 'block' || info.blockElements !== 1) return undefined;
  const result = emptyLike(matrix);
  const size = weightsBytes(format, 1, 1);
  const [from, to] = [matrix.bytes, result.bytes];
  for (let row = 0; row < rows; row++) {
    const begin = row * cols;
    for (const [p, column] of order.entries()) {
      const at = (begin + column) * size;
      for (let i = 0; i < size; i++) to[(begin + p) * size + i] = from[at + i] as number;
    }
  }
  return result;
}

/** `order` undone: column j of a matrix left as it is meets activation `inverse[j]`. */
export function inverseOrder(order: Int32Array): Tensor<'i32'> {
  const inverse = new Int32Array(order.length);
  for (const [p, column] of order.entries()) inverse[column] = p;
  return new Tensor('i32', inverse, [order.length]);
}

/** Vectors: biases and norms. */
export function vectorInOrder<T extends Tensor<'f32'> | undefined>(
  vector: T,
  order?: Int32Array,
): T {
  if (vector === undefined || order === undefined) return vector;
  const { data } = vector;
  const moved = Float32Array.from(order, (i) => data[i] as number);
  return new Tensor('f32', moved, vector.shape) as Tensor<'f32'> as T;
}

function emptyLike(
  { format, rows, cols, codebook, tensorScale }: QuantizedTensor,
  count = rows,
): QuantizedTensor {
  return QuantizedTensor.empty(format, [count, cols], {
    ...(codebook === undefined ? {} : { codebook }),
    tensorScale,
  });
}

function checkPermutation(name: string, order: unknown, count: number): void {
  if (!(order instanceof Int32Array) || order.length !== count) {
    const given = order instanceof Int32Array ? `${order.length} numbers` : String(order);
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${name} is ${given}, expected an Int32Array of ${count}`,
    );
  }
  const seen = new Uint8Array(count);
  for (const [p, i] of order.entries()) {
    if (i >= 0 && i < count && seen[i] === 0) seen[i] = 1;
    else {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `${name}[${p}] is ${i}, expected each of 0 to ${count - 1} once`,
      );
    }
  }
}

function checkPairs(name: string, keys: Int32Array, rope: ModelConfig['rope']): void {
  const half = rope.rotaryDim / 2;
  const [a, b] = pairChannels(rope.mode, half);
  for (let j = 0; j < half; j++) {
    const first = keys[a(j)] as number;
    const pair = rope.mode === 'half' ? first : first / 2;
    const fits = first < rope.rotaryDim && a(pair) === first && keys[b(j)] === b(pair);
    if (fits && pair < half) continue;
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${name}[${a(j)}] and [${b(j)}] are ${first} and ${keys[b(j)]}, expected a pair of the rotary embedding`,
    );
  }
}
