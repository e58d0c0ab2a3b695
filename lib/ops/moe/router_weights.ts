import { checkOptions } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import { normalAt } from './noise.js';
import { checkInteger, finiteMatrixOf } from './values.js';

/** Options of {@link hyperRouterWeights}. */
export interface HyperRouterOptions {
  /** Columns of the router. */
  hidden: number;
  /** Of the fixed network's weights. 0 to 2^32 - 1. */
  seed: number;
  /** Width of the network's middle. Default: a quarter of the embedding's, at least 1. */
  width?: number;
}

/**
 * A router's weights from a fixed random network and trained embeddings, HyperRouter (Do et al. 2023):
 *
 * `router[e] = W2 relu(W1 embedding[e])`
 *
 * with `W1 [width, dim]` and `W2 [hidden, width]` of normal numbers with variances 2 / dim and 1 / width (so that rows have
 * about the length of `embedding` rows), which depend on the seed alone. Only the embeddings are trained; the weights are
 * computed once, and routing is that of {@link moeRoute} over `x router^T`. In the authors' code (giangdip2410/HyperRouter) the
 * network makes all rows, and a bias of the router, from one embedding of the layer, has biases itself, and weights are the softmax
 * of the chosen (`scoring: 'softmaxChosen'`); here each expert has an embedding, the network is shared, which takes `experts` times
 * fewer fixed weights, and there are no biases.
 *
 * @param embedding [experts, dim] f32, f16 or bf16
 * @returns [experts, hidden]
 * @throws `BL_NON_FINITE`, `BL_OUT_OF_RANGE`, `BL_INVALID_SHAPE`
 *
 * @example
 * ```ts
 * const embedding = new Tensor('f32', [1, 0, 0, 1], [2, 2]);
 * const router = hyperRouterWeights(embedding, { hidden: 16, seed: 7 }); // [2, 16]
 * ```
 */
export function hyperRouterWeights(
  embedding: Tensor<FloatDType>,
  options: HyperRouterOptions,
): Tensor<'f32'> {
  const op = 'hyperRouterWeights';
  checkOptions(op, options, new Set(['hidden', 'seed', 'width']));
  const { values, rows, cols } = finiteMatrixOf(op, 'embedding', embedding);
  const { hidden, seed, width = Math.max(1, Math.floor(cols / 4)) } = options;
  checkInteger(op, 'hidden', hidden, 1, 2 ** 31 - 1);
  checkInteger(op, 'seed', seed, 0, 2 ** 32 - 1);
  checkInteger(op, 'width', width, 1, 2 ** 31 - 1);
  const first = Float64Array.from(
    { length: width * cols },
    (_, i) => normalAt(seed, i) * Math.sqrt(2 / Math.max(cols, 1)),
  );
  const second = Float64Array.from(
    { length: hidden * width },
    (_, i) => normalAt(seed, width * cols + i) / Math.sqrt(width),
  );
  const router = new Float32Array(rows * hidden);
  const middle = new Float64Array(width);
  for (let e = 0; e < rows; e++) {
    for (let j = 0; j < width; j++) {
      let sum = 0;
      for (let i = 0; i < cols; i++) {
        sum += (first[j * cols + i] as number) * (values[e * cols + i] as number);
      }
      middle[j] = Math.max(sum, 0);
    }
    for (let h = 0; h < hidden; h++) {
      let sum = 0;
      for (let j = 0; j < width; j++) {
        sum += (second[h * width + j] as number) * (middle[j] as number);
      }
      router[e * hidden + h] = sum;
    }
  }
  return new Tensor('f32', router, [rows, hidden]);
}

/**
 * Avg-K's router (Liu et al. 2023, "Towards A Unified View of Sparse Feed-Forward Network"): a feed-forward layer cut into
 * blocks of `blockSize` memory cells; a block's score is the input's product with the mean of the block's keys,
 *
 * `router[b] = mean of keys[b * blockSize .. (b + 1) * blockSize)`, logits = x router^T.
 *
 * The `topK` best blocks are computed and added with weight 1, as the dense layer adds all of them: see
 * {@link unitWeights}. No router is trained. That blocks are chosen by the means of their hidden states is in the paper's abstract; that
 * this is done by means of keys, before the activation, and the weight of 1 are from memory: its formulas could not be compared.
 *
 * @param keys [ffn, hidden] f32, f16 or bf16: the first matrix of the layer (gate of a gated one)
 * @returns [ffn / blockSize, hidden]
 * @throws `BL_NON_FINITE`, `BL_OUT_OF_RANGE`, `BL_INVALID_SHAPE`
 *
 * @example
 * ```ts
 * const keys = new Tensor('f32', [1, 0, 3, 0, 0, 2, 0, 4], [4, 2]);
 * averageKeyRouter(keys, { blockSize: 2 }).toArray(); // [2, 0, 0, 3]
 * ```
 */
export function averageKeyRouter(
  keys: Tensor<FloatDType>,
  options: { blockSize: number },
): Tensor<'f32'> {
  const op = 'averageKeyRouter';
  checkOptions(op, options, new Set(['blockSize']));
  const { blockSize } = options;
  const { values, rows, cols } = finiteMatrixOf(op, 'keys', keys);
  checkInteger(op, 'blockSize', blockSize, 1, 2 ** 31 - 1);
  if (rows % blockSize !== 0) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: keys.shape[0] is ${rows}, expected a multiple of ${blockSize} (blockSize)`,
    );
  }
  const sums = new Float64Array((rows / blockSize) * cols);
  for (let i = 0; i < rows; i++) {
    const block = Math.floor(i / blockSize) * cols;
    for (let c = 0; c < cols; c++) {
      sums[block + c] = (sums[block + c] as number) + (values[i * cols + c] as number);
    }
  }
  return new Tensor(
    'f32',
    Float32Array.from(sums, (sum) => sum / blockSize),
    [rows / blockSize, cols],
  );
}
