import { checkObject, checkOptions, checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { Tensor } from '../../tensor.js';
import type { CacheSamples } from '../calibration/cache_samples.js';
import { symmetricEigen } from './eigen.js';

/** A vector x of `channels` as `rank` features: `f = down x`, `x ~ up f`. */
export interface LowRankPair {
  /** [rank, channels] */
  readonly down: Tensor<'f32'>;
  /** [channels, rank] */
  readonly up: Tensor<'f32'>;
  /** What is lost of the samples: `sum w (x - up down x)^2 / sum w x^2`. */
  readonly loss: number;
}

/** Factors of a layer's keys and values; channels are those of all kv heads together. */
export interface LowRankFactors {
  /** Of keys before the rotary embedding. */
  readonly keys: LowRankPair;
  readonly values: LowRankPair;
}

/** Ranks of {@link fitLowRank}: 1 to numKvHeads * headDim (values: valueDim), at most 1024. */
export interface LowRankOptions {
  keyRank: number;
  /** Default: keyRank. */
  valueRank?: number;
}

/**
 * Factors that lose the least of a layer's keys and values for a calibration text (CSKV, Wang et al. 2024: channel shrinking
 * by a low-rank decomposition fitted to activations): the least squares solution of
 *
 *     minimize sum over tokens t and channels c of  w[c] (x[t, c] - (up down x[t])[c])^2
 *
 * which is spanned by the first eigenvectors V of `W^1/2 X^T X W^1/2`: `down = V^T W^1/2`, `up = W^-1/2 V`, in float64. Keys:
 * `w[c]` is the mean square of the queries that meet channel c, as it decides what an error does to a score (1 without
 * queries in the samples); values: 1.
 *
 * CSKV's, by its abstract and the authors' code (wln20/CSKV): features of all heads together, keys without the rotary embedding,
 * factors that make the layer's reconstruction error small. There they are trained (Adam, from a singular value decomposition of the
 * projection, scaled by the inputs' mean magnitude to the power 0.5), and features come from the layer's input; here they are the
 * optimum of that error in closed form, features come from keys and values (`down` times the projection is the same map), and weighing
 * by queries is ours.
 *
 * @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE` (ranks), `BL_NON_FINITE`
 *
 * @example
 * ```ts
 * const factors = cacheSamples(decoder, calibrationText).map((layer) => fitLowRank(layer, { keyRank: 256 }));
 * const cache = decoder.createLowRankCache({ factors, recent: 32 });
 * for await (const text of decoder.generate(prompt, { cache })) process.stdout.write(text);
 * ```
 */
export function fitLowRank(samples: CacheSamples, options: LowRankOptions): LowRankFactors {
  checkObject('fitLowRank', 'samples', samples);
  checkOptions('fitLowRank', options, new Set(['keyRank', 'valueRank']));
  const { keyRank, valueRank = keyRank } = options;
  return {
    keys: fitPair('key', samples.keys, keyRank, samples.queries),
    values: fitPair('value', samples.values, valueRank),
  };
}

function fitPair(
  name: 'key' | 'value',
  x: Tensor<'f32'>,
  rank: number,
  queries?: Tensor<'f32'>,
): LowRankPair {
  const [, heads = 0, dim = 0] = checked(`${name}s`, x);
  const channels = heads * dim;
  const most = Math.min(channels, 1024);
  if (!Number.isInteger(rank) || rank < 1 || rank > most) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `fitLowRank: ${name}Rank is ${described(rank)}, expected 1 to ${most} (channels of all heads, at most 1024)`,
    );
  }
  const roots = queries === undefined ? undefined : weightRoots(queries, heads, dim);
  const gram = gramMatrix(x, channels, roots);
  const { values, vectors } = symmetricEigen(gram);
  const down = new Float32Array(rank * channels);
  const up = new Float32Array(channels * rank);
  for (let r = 0; r < rank; r++) {
    for (let c = 0; c < channels; c++) {
      const entry = (vectors[r] as Float64Array)[c] as number;
      const root = roots?.[c] ?? 1;
      down[r * channels + c] = entry * root;
      up[c * rank + r] = entry / root;
    }
  }
  const total = values.reduce((sum, value) => sum + Math.max(value, 0), 0);
  const lost = values.subarray(rank).reduce((sum, value) => sum + Math.max(value, 0), 0);
  return {
    down: new Tensor('f32', down, [rank, channels]),
    up: new Tensor('f32', up, [channels, rank]),
    loss: total > 0 ? lost / total : 0,
  };
}

function checked(name: string, tensor: Tensor<'f32'>): readonly number[] {
  checkTensor('fitLowRank', `samples.${name}`, tensor);
  const { dtype, shape, data, size, contiguous } = tensor;
  if (dtype !== 'f32' || shape.length !== 3 || size === 0 || !contiguous) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `fitLowRank: samples.${name} is ${dtype} [${shape}], expected contiguous f32 [tokens, heads, channels], none of them 0`,
    );
  }
  for (let i = 0; i < size; i++) {
    if (Number.isFinite(data[i])) continue;
    throw argumentError('BL_NON_FINITE', `fitLowRank: ${name}[${i}] is ${data[i]}`);
  }
  return shape;
}

/** Square roots of the weights of keys: root mean square of the queries of a kv head's group, by channel. */
function weightRoots(queries: Tensor<'f32'>, heads: number, dim: number): Float64Array {
  const [, numHeads = 0, headDim = 0] = checked('queries', queries);
  if (numHeads % heads !== 0 || headDim !== dim) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `fitLowRank: queries has shape [${queries.shape}], expected [tokens, a multiple of ${heads}, ${dim}] (as keys)`,
    );
  }
  const { data, size } = queries;
  const sums = new Float64Array(heads * dim);
  for (let i = 0; i < size; i++) {
    const head = Math.floor((Math.floor(i / dim) % numHeads) / (numHeads / heads));
    const channel = head * dim + (i % dim);
    sums[channel] = (sums[channel] as number) + (data[i] as number) ** 2;
  }
  // A channel that no query has used still is to be found again: a weight far below all others.
  const largest = sums.reduce((most, sum) => Math.max(most, sum), 0);
  if (largest === 0) return sums.fill(1);
  return sums.map((sum) => Math.sqrt(Math.max(sum / largest, 1e-8)));
}

/** Sum over tokens of y y^T, y = x times the roots. */
function gramMatrix(x: Tensor<'f32'>, channels: number, roots?: Float64Array): Float64Array[] {
  const gram = Array.from({ length: channels }, () => new Float64Array(channels));
  const y = new Float64Array(channels);
  const { data, size } = x;
  for (let first = 0; first < size; first += channels) {
    for (let c = 0; c < channels; c++) y[c] = (data[first + c] as number) * (roots?.[c] ?? 1);
    for (let i = 0; i < channels; i++) {
      const row = gram[i] as Float64Array;
      const factor = y[i] as number;
      for (let j = 0; j <= i; j++) row[j] = (row[j] as number) + factor * (y[j] as number);
    }
  }
  for (let i = 0; i < channels; i++) {
    for (let j = 0; j < i; j++) (gram[j] as Float64Array)[i] = gram[i]?.[j] as number;
  }
  return gram;
}
