import { argumentError } from '../../errors.js';
import { attention } from '../../ops/attention/attention.js';
import { rope } from '../../ops/rope/rope.js';
import { isRecording } from '../../run.js';
import { Tensor } from '../../tensor.js';
import type { ModelConfig } from '../config.js';
import type { CacheStep, DecoderCache, UnrotatedStep } from '../decoder_cache.js';
import type { CacheSamples } from './cache_samples.js';

interface SampledLayer {
  samples: Required<CacheSamples>;
  /** [capacity, numKvHeads, headDim] */
  rotated: Tensor<'f32'>;
}

/** A dense cache that keeps what attention got: queries, keys and values before the rotary embedding. For synchronous steps. */
export class SamplingCache implements DecoderCache {
  readonly numLayers: number;
  readonly #layers: SampledLayer[];
  #length = 0;

  constructor(
    config: ModelConfig,
    readonly capacity: number,
  ) {
    const { numLayers, numHeads, numKvHeads, headDim, valueDim } = config;
    this.numLayers = numLayers;
    this.#layers = Array.from({ length: numLayers }, () => ({
      samples: {
        queries: Tensor.zeros('f32', [capacity, numHeads, headDim]),
        keys: Tensor.zeros('f32', [capacity, numKvHeads, headDim]),
        values: Tensor.zeros('f32', [capacity, numKvHeads, valueDim]),
      },
      rotated: Tensor.zeros('f32', [capacity, numKvHeads, headDim]),
    }));
  }

  get length(): number {
    return this.#length;
  }

  /** Of all layers; keys and queries not rotated. */
  get samples(): CacheSamples[] {
    return this.#layers.map(({ samples }) => samples);
  }

  need(count: number): void {
    if (this.#length + count <= this.capacity) return;
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `cacheSamples: ${this.#length + count} tokens, expected at most ${this.capacity}`,
    );
  }

  acquire(): () => void {
    return () => undefined;
  }

  begin(count: number): CacheStep {
    this.need(count);
    const start = this.#length;
    return {
      position: start,
      layer: (index) => ({ mix: (step) => this.#mix(index, start, step) }),
      commit: () => {
        this.#length += count;
      },
      abort: () => undefined,
    };
  }

  #mix(index: number, start: number, step: UnrotatedStep): void {
    if (isRecording()) {
      throw argumentError('BL_UNSUPPORTED', 'cacheSamples: samples of a recorded step');
    }
    const { samples, rotated } = this.#layers[index] as SampledLayer;
    const end = start + (step.query.shape[0] as number);
    const keep = (to: Tensor<'f32'>, from: Tensor<'f32'>): void =>
      to.data.set(from.data.subarray(0, from.size), start * (from.size / (end - start)));
    keep(samples.queries, step.query);
    keep(samples.keys, step.key);
    keep(samples.values, step.value);
    rope(step.key, step.positions, { ...step.rope, out: rotated.slice(start, end) });
    rope(step.query, step.positions, { ...step.rope, out: step.query });
    attention(step.query, rotated.slice(0, end), samples.values.slice(0, end), {
      ...step.attention,
      out: step.out,
    });
  }

  dispose(): void {
    for (const { samples, rotated } of this.#layers) {
      for (const tensor of [samples.queries, samples.keys, samples.values, rotated]) {
        tensor.dispose();
      }
    }
  }
}
