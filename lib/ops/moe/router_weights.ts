import { checkOptions } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import { uniformAt } from './noise.js';
import { checkAxis, checkInteger, finiteMatrixOf } from './values.js';

/** Of a router that a network makes: 2 GB in float64. */
const mostNumbers = 2 ** 28;

/** Options of {@link hyperRouterWeights}. */
export interface HyperRouterOptions {
  /** Rows of the router. */
  experts: number;
  /** Columns of the router. */
  hidden: number;
  /** Of the fixed network's weights. 0 to 2^32 - 1. */
  seed: number;
  /** Width of the network's middle. Default 256, the authors'. */
  width?: number;
}

/**
 * A router from a fixed random network and a trained embedding, HyperRouter (Do et al. 2023):
 *
 * `[weight | bias] = W2 relu(W1 embedding + b1) + b2`, a row of hidden + 1 numbers for each expert
 *
 * Only the embedding of a layer is trained, so that routers are neither free to collapse nor random. The weights are computed once, in
 * `width * experts * (hidden + 1)` draws, and routing is that of {@link moeRoute} over `x weight^T + bias`, with
 * `scoring: 'softmaxChosen'`. As the authors' code (giangdip2410/HyperRouter, custom_gate.py) has it, but for the random numbers
 * themselves: uniform in `[-1, 1) / sqrt(inputs)`, W1 [width, dim], b1, W2 [experts * (hidden + 1), width] and b2 drawn one after the
 * other.
 *
 * @param embedding [1, dim] f32, f16 or bf16; the authors' dim is `hidden`, and it begins as normal numbers
 * @returns weight [experts, hidden], bias [experts]
 * @throws `BL_NON_FINITE`, `BL_OUT_OF_RANGE`, `BL_INVALID_SHAPE`; `BL_INVALID_ARGUMENT` within a sequence: it reads values
 *
 * @example
 * ```ts
 * const embedding = new Tensor('f32', [0.3, -1, 0.5, 2], [1, 4]);
 * const { weight, bias } = hyperRouterWeights(embedding, { experts: 8, hidden: 4, seed: 7 });
 * const router = new Linear(quantize(weight, 'f32'), { bias }); // of `bitloom/nn`
 * ```
 */
export function hyperRouterWeights(
  embedding: Tensor<FloatDType>,
  options: HyperRouterOptions,
): { weight: Tensor<'f32'>; bias: Tensor<'f32'> } {
  const op = 'hyperRouterWeights';
  checkOptions(op, options, new Set(['experts', 'hidden', 'seed', 'width']));
  const { values, cols } = finiteMatrixOf(op, 'embedding', embedding);
  checkAxis(op, 'embedding', embedding, 0, 1, 'one of the layer');
  const { experts, hidden, seed, width = 256 } = options;
  checkInteger(op, 'experts', experts, 1, 2 ** 20);
  checkInteger(op, 'hidden', hidden, 1, 2 ** 24);
  checkInteger(op, 'seed', seed, 0, 2 ** 32 - 1);
  checkInteger(op, 'width', width, 1, 2 ** 24);
  if (experts * (hidden + 1) > mostNumbers) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: experts * (hidden + 1) is ${experts * (hidden + 1)}, expected at most ${mostNumbers}`,
    );
  }
  let drawn = 0;
  /** A layer of the network: all weights are drawn, then all biases. */
  const layer = (rows: number, input: ArrayLike<number>): Float64Array => {
    const bound = 1 / Math.sqrt(Math.max(input.length, 1));
    const draw = () => (2 * uniformAt(seed, drawn++) - 1) * bound;
    const sums = new Float64Array(rows);
    for (let r = 0; r < rows; r++) {
      let sum = 0;
      for (let i = 0; i < input.length; i++) sum += draw() * (input[i] as number);
      sums[r] = sum;
    }
    return sums.map((sum) => sum + draw());
  };
  const middle = layer(
    width,
    Array.from({ length: cols }, (_, i) => values[i] as number),
  ).map((x) => Math.max(x, 0));
  const rows = layer(experts * (hidden + 1), middle);
  const weight = Tensor.zeros('f32', [experts, hidden]);
  const bias = Tensor.zeros('f32', [experts]);
  for (let e = 0; e < experts; e++) {
    const own = rows.subarray(e * (hidden + 1), (e + 1) * (hidden + 1));
    weight.data.set(own.subarray(0, hidden), e * hidden);
    bias.data[e] = own[hidden] as number;
  }
  return { weight, bias };
}

/**
 * Avg-K's router (Liu et al. 2023, "Towards A Unified View of Sparse Feed-Forward Network"): a feed-forward layer cut into
 * blocks of `blockSize` memory cells; a block's score is the input's product with the mean of the block's keys,
 *
 * `router[b] = mean of keys[b * blockSize .. (b + 1) * blockSize)`, logits = x router^T.
 *
 * The `topK` best blocks are computed and added with weight 1, as the dense layer adds all of them: see
 * {@link unitWeights}. No router is trained. The paper's abstract has that blocks are chosen by the means of their hidden states, which
 * before the activation are `mean(keys x) = mean(keys) x`; its formulas beyond the abstract, and the weight of 1, could not be compared.
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
