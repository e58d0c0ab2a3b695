import { checkObject, checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { Tensor } from '../../tensor.js';
import type { RopeConfig } from '../rope_config.js';
import type { CacheSamples } from './cache_samples.js';

/**
 * In which order a layer's channels stand in the cache: place p holds channel `order[p]`. Large channels come to stand side by
 * side, so that they share scales with one another and not with small ones, which would be rounded to nothing beside them.
 */
export interface ChannelOrder {
  /** [headDim], the same for all heads: pairs of the rotary embedding move together, with their frequency. */
  readonly keys: Int32Array;
  /** By kv head, [valueDim] each. */
  readonly values: readonly Int32Array[];
}

/**
 * An order of a layer's channels in which blocks of 16 lose less (block floating point with rearranged outliers: Trukhanov and
 * Soloveychik 2024, "Accurate Block Quantization in LLMs with Outliers"), for {@link LoadOptions.channelOrders}: the
 * permutation is folded into the projections, and costs nothing later.
 *
 * Channels are sorted by falling mean square, if samples rounded in blocks then lose less than as they stand. Keys: pairs
 * move together, by `sum over heads of (the pair's mean square) / (the head's)`, in one order for all heads, as they share the
 * frequencies; channels that are not rotated are sorted among themselves. An error counts times the mean square of the
 * queries in its channel: without outliers large channels matter most, and sorting would only bring them together.
 * Values: by head.
 *
 * @param samples queries, keys and values of the layer for some text
 * @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE` (rotaryDim), `BL_NON_FINITE`
 *
 * @example
 * ```ts
 * const samples = cacheSamples(decoder, calibrationText);
 * const channelOrders = samples.map((layer) => fitChannelOrder(layer, decoder.config.rope));
 * const reordered = await load('model.gguf', { channelOrders });
 * for await (const text of reordered.generate(prompt, { cache: { format: 'bfp4' } })) process.stdout.write(text);
 * ```
 */
export function fitChannelOrder(
  samples: CacheSamples,
  rope: Pick<RopeConfig, 'mode' | 'rotaryDim'>,
): ChannelOrder {
  checkObject('fitChannelOrder', 'samples', samples);
  checkObject('fitChannelOrder', 'rope', rope);
  const { keys, values, queries } = samples;
  const keyEnergy = channelEnergy('keys', keys);
  const valueEnergy = channelEnergy('values', values);
  const weights = queries === undefined ? undefined : channelEnergy('queries', queries);
  const numHeads = weights?.length ?? keyEnergy.length;
  const headDim = (keyEnergy[0] as Float64Array).length;
  if (numHeads % keyEnergy.length !== 0 || (weights?.[0]?.length ?? headDim) !== headDim) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `fitChannelOrder: queries have shape [${queries?.shape}], expected heads in groups of keys of [${keys.shape}]`,
    );
  }
  const group = numHeads / keyEnergy.length;
  const sorted = keyOrder(keyEnergy, rope, headDim);
  const all = keyEnergy.map((_, g) => weights?.slice(g * group, (g + 1) * group) ?? []);
  const loss = (order: Int32Array): number =>
    all.reduce((sum, heads, g) => sum + blockLoss(keys, g, order, heads), 0);
  return {
    keys: loss(sorted) < loss(identity(headDim)) ? sorted : identity(headDim),
    values: valueEnergy.map((energy, g) => {
      const order = descending(energy);
      const as = identity(energy.length);
      return blockLoss(values, g, order, []) < blockLoss(values, g, as, []) ? order : as;
    }),
  };
}

/** Pairs by falling energy. */
function keyOrder(
  keys: readonly Float64Array[],
  { mode, rotaryDim }: Pick<RopeConfig, 'mode' | 'rotaryDim'>,
  headDim: number,
): Int32Array {
  if (!Number.isInteger(rotaryDim) || rotaryDim % 2 !== 0 || rotaryDim < 0 || rotaryDim > headDim) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `fitChannelOrder: rotaryDim is ${described(rotaryDim)}, expected an even number from 0 to ${headDim} (= head_dim)`,
    );
  }
  const energy = new Float64Array(headDim);
  for (const head of keys) {
    const total = head.reduce((sum, x) => sum + x, 0);
    for (const [i, x] of head.entries()) {
      if (total > 0) energy[i] = (energy[i] as number) + x / total;
    }
  }
  const half = rotaryDim / 2;
  const [a, b] = pairChannels(mode, half);
  const pairs = Float64Array.from(
    { length: half },
    (_, j) => (energy[a(j)] as number) + (energy[b(j)] as number),
  );
  const order = new Int32Array(headDim);
  for (const [place, pair] of descending(pairs).entries()) {
    order[a(place)] = a(pair);
    order[b(place)] = b(pair);
  }
  const rest = descending(energy.subarray(rotaryDim));
  for (const [place, i] of rest.entries()) order[rotaryDim + place] = rotaryDim + i;
  return order;
}

/**
 * What a head loses if each 16 channels of `order` are rounded to 4 bits with an exponent in common:
 * `sum (x - rounded)^2 weight`; weights are summed over `heads`, 1 where there are none.
 */
function blockLoss(
  { data, shape }: Tensor<'f32'>,
  head: number,
  order: Int32Array,
  heads: readonly Float64Array[],
): number {
  const [tokens = 0, numHeads = 0, dim = 0] = shape;
  const weights = Float64Array.from(order, (channel) =>
    heads.length === 0 ? 1 : heads.reduce((sum, head) => sum + (head[channel] as number), 0),
  );
  let loss = 0;
  for (let token = 0; token < tokens; token++) {
    const row = (token * numHeads + head) * dim;
    for (let first = 0; first < dim; first += 16) {
      const end = Math.min(first + 16, dim);
      let largest = 0;
      for (let p = first; p < end; p++) {
        largest = Math.max(largest, Math.abs(data[row + (order[p] as number)] as number));
      }
      if (largest === 0) continue;
      // The smallest power of two at which 7 steps reach the largest.
      const step = 2 ** Math.ceil(Math.log2(largest / 7.5));
      for (let p = first; p < end; p++) {
        const x = data[row + (order[p] as number)] as number;
        loss += (x - Math.round(x / step) * step) ** 2 * (weights[p] as number);
      }
    }
  }
  return loss;
}

const identity = (count: number): Int32Array => Int32Array.from({ length: count }, (_, i) => i);

/** The first and the second channel of pair j. */
export function pairChannels(
  mode: 'interleaved' | 'half',
  half: number,
): [(j: number) => number, (j: number) => number] {
  return mode === 'half' ? [(j) => j, (j) => half + j] : [(j) => 2 * j, (j) => 2 * j + 1];
}

/** Indices by falling value; equal ones in their order. */
function descending(values: Float64Array): Int32Array {
  const indices = Int32Array.from(values, (_, i) => i);
  return indices.sort((i, j) => (values[j] as number) - (values[i] as number) || i - j);
}

/** Mean square of each channel, by head. */
function channelEnergy(name: string, tensor: Tensor<'f32'>): Float64Array[] {
  checkTensor('fitChannelOrder', `samples.${name}`, tensor);
  const { dtype, shape, data, size, contiguous } = tensor;
  const [tokens = 0, heads = 0, dim = 0] = shape;
  if (dtype !== 'f32' || shape.length !== 3 || size === 0 || !contiguous) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `fitChannelOrder: samples.${name} is ${dtype} [${shape}], expected contiguous f32 [tokens, heads, channels], none of them 0`,
    );
  }
  const energy = Array.from({ length: heads }, () => new Float64Array(dim));
  for (let i = 0; i < size; i++) {
    const x = data[i] as number;
    if (!Number.isFinite(x)) {
      throw argumentError('BL_NON_FINITE', `fitChannelOrder: ${name}[${i}] is ${x}`);
    }
    const head = energy[Math.floor(i / dim) % heads] as Float64Array;
    head[i % dim] = (head[i % dim] as number) + (x * x) / tokens;
  }
  return energy;
}
