import { checkObject, checkTensor } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { rope as rotate } from '../../ops/rope/rope.js';
import { Tensor } from '../../tensor.js';
import type { RopeConfig } from '../rope_config.js';
import type { CacheSamples } from './cache_samples.js';

/**
 * Mean of a layer's rotated keys over the tokens of a calibration text, by kv head and channel: what {@link
 * PagedCacheOptions.keyMeans} and {@link PagedKVCacheOptions.keyMeans} take off keys before they are quantized (SageAttention,
 * Zhang et al. 2024). Any mean gives the same attention, as softmax does not see it; the true one leaves the smallest range.
 *
 * @param rope how the model rotates; `freqFactors` as its layers have them
 * @returns [numKvHeads, headDim]
 * @throws `BL_INVALID_SHAPE`
 *
 * @example
 * ```ts
 * const keyMeans = cacheSamples(decoder, calibrationText).map((layer) => fitKeyMean(layer, decoder.config.rope));
 * for await (const text of decoder.generate(prompt, { cache: { format: 'i8', keyMeans } })) process.stdout.write(text);
 * ```
 */
export function fitKeyMean(
  samples: CacheSamples,
  rope: RopeConfig & { freqFactors?: Tensor<'f32'> | undefined },
): Tensor<'f32'> {
  checkObject('fitKeyMean', 'samples', samples);
  checkObject('fitKeyMean', 'rope', rope);
  const { keys } = samples;
  checkTensor('fitKeyMean', 'samples.keys', keys);
  const [tokens = 0, heads = 0, dim = 0] = keys.shape;
  if (keys.rank !== 3 || keys.size === 0) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `fitKeyMean: keys has shape [${keys.shape}], expected [tokens, heads, channels], none of them 0`,
    );
  }
  const { mode, theta, rotaryDim, scaling, freqFactors } = rope;
  const positions = Int32Array.from({ length: tokens }, (_, t) => t);
  const rotated = rotate(keys, new Tensor('i32', positions, [tokens]), {
    mode,
    theta,
    rotaryDim,
    ...(scaling === undefined ? {} : { scaling }),
    ...(freqFactors === undefined ? {} : { freqFactors }),
  });
  const sums = new Float64Array(heads * dim);
  for (const [i, x] of rotated.data.entries()) {
    sums[i % sums.length] = (sums[i % sums.length] as number) + x;
  }
  rotated.dispose();
  return new Tensor(
    'f32',
    Float32Array.from(sums, (sum) => sum / tokens),
    [heads, dim],
  );
}
