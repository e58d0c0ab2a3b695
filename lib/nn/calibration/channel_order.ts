import { argumentError } from '../../errors.js';
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
 * The order of a layer's channels by falling magnitude (block floating point with rearranged outliers: Trukhanov and
 * Soloveychik 2024, "Accurate Block Quantization in LLMs with Outliers"), for {@link LoadOptions.channelOrders}: the
 * permutation is folded into the projections, and costs nothing later.
 *
 * Keys: `m[i] = sum over heads of (the pair's mean square) / (the head's)`, one order for all heads, as they share the
 * frequencies. Channels that are not rotated are sorted among themselves. Values: mean square of each channel, by head.
 *
 * @param samples keys (rotated or not) and values of the layer for some text
 * @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE` (rotaryDim), `BL_NON_FINITE`
 *
 * @example
 * ```ts
 * const samples = await cacheSamples(decoder, calibrationText);
 * const channelOrders = samples.map((layer) => fitChannelOrder(layer, decoder.config.rope));
 * const reordered = await load('model.gguf', { channelOrders });
 * for await (const text of reordered.generate(prompt, { cache: { format: 'bfp4' } })) process.stdout.write(text);
 * ```
 */
export function fitChannelOrder(
  samples: CacheSamples,
  rope: Pick<RopeConfig, 'mode' | 'rotaryDim'>,
): ChannelOrder {
  const keys = channelEnergy('keys', samples.keys);
  const values = channelEnergy('values', samples.values);
  const { mode, rotaryDim } = rope;
  const headDim = (keys[0] as Float64Array).length;
  if (!Number.isInteger(rotaryDim) || rotaryDim % 2 !== 0 || rotaryDim < 0 || rotaryDim > headDim) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `fitChannelOrder: rotaryDim is ${rotaryDim}, expected an even number from 0 to ${headDim} (= head_dim)`,
    );
  }
  const energy = new Float64Array(headDim);
  for (const head of keys) {
    const total = head.reduce((sum, x) => sum + x, 0);
    if (total > 0)
      for (const [i, x] of head.entries()) energy[i] = (energy[i] as number) + x / total;
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
  return { keys: order, values: values.map(descending) };
}

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
function channelEnergy(name: string, { shape, data }: CacheSamples['keys']): Float64Array[] {
  const [tokens = 0, heads = 0, dim = 0] = shape;
  if (shape.length !== 3 || tokens * heads * dim === 0) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `fitChannelOrder: ${name} has shape [${shape}], expected [tokens, heads, channels], none of them 0`,
    );
  }
  const energy = Array.from({ length: heads }, () => new Float64Array(dim));
  for (let i = 0; i < data.length; i++) {
    const x = data[i] as number;
    if (!Number.isFinite(x)) {
      throw argumentError('BL_NON_FINITE', `fitChannelOrder: ${name}[${i}] is ${x}`);
    }
    const head = energy[Math.floor(i / dim) % heads] as Float64Array;
    head[i % dim] = (head[i % dim] as number) + (x * x) / tokens;
  }
  return energy;
}
