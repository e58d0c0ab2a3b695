import type { DeviceName } from '../device.js';
import { argumentError } from '../errors.js';
import { attention } from '../ops/attention/attention.js';
import { decodeAttention } from '../ops/attention/decode_attention.js';
import type { AttentionOptions as MixOptions } from '../ops/attention/options.js';
import { kvWrite } from '../ops/kv/kv_write.js';
import type { PreparedActivations } from '../ops/matmul/prepared_activations.js';
import { type RopeOptions, rope } from '../ops/rope/rope.js';
import type { RunOptions } from '../run.js';
import { type FloatDType, Tensor } from '../tensor.js';
import { isMixing, isPaged, type MixingLayer, type PagedLayer } from './decoder_cache.js';
import type { LayerCache } from './kv_cache.js';
import type { LatentProjection } from './latent_projection.js';
import type { Linear } from './linear.js';
import type { RMSNorm } from './rms_norm.js';
import type { RopeConfig } from './rope_config.js';
import { SharedInput } from './shared_input.js';

/** Layers and shape of an {@link Attention}. */
export interface AttentionOptions extends RunOptions {
  /** hidden -> num_heads * head_dim */
  query: Linear;
  /** hidden -> num_kv_heads * head_dim; with `latent` it is that's own, as the value's. */
  key: Linear;
  /** hidden -> num_kv_heads * value_dim */
  value: Linear;
  /** Keys and values come through a latent vector. */
  latent?: LatentProjection | undefined;
  /** Of the scores, times 1 / sqrt(head_dim). Default: 1. */
  scale?: number;
  /** num_heads * value_dim -> hidden */
  output: Linear;
  /** Norms of each head's query and key (qwen3), or of all heads together (olmoe). */
  queryNorm?: RMSNorm | undefined;
  keyNorm?: RMSNorm | undefined;
  numHeads: number;
  numKvHeads: number;
  rope: RopeConfig;
  /** [rotary_dim / 2] divisors of the frequencies (llama 3). */
  freqFactors?: Tensor<'f32'> | undefined;
  /** Keys that a query sees at most; 0 (default): all. */
  window?: number;
}

/** A matrix [M, heads * dim] and the same memory as [M, heads, dim]. */
export interface HeadsView {
  rows: Tensor<'f32'>;
  heads: Tensor<'f32'>;
}

/** Where {@link Attention.forward} puts its intermediate values. */
export interface AttentionScratch {
  query: HeadsView;
  key: HeadsView;
  /** For a cache in pages, which does not take them as they come. */
  value: HeadsView;
  mixed: HeadsView;
}

/** What one call of {@link Attention.forward} works on. */
export interface AttentionStep {
  /** Receives keys and values at [start, start + M). */
  cache: LayerCache | PagedLayer | MixingLayer;
  /**
   * Tokens that stand before these ones in the text. Undefined, for a {@link LayerCache}: that is read from `positions`
   * and `sequence` when the operators run, so that they may be recorded (`Graph`).
   */
  start: number | undefined;
  /** [M] i32, of the rotary embedding; without `start` where the cache receives them too. */
  positions: Tensor<'i32'>;
  /** Without `start`: [0, M] and [0, tokens in the cache, these included]. */
  sequence?: { cuQueries: Tensor<'i32'>; cuKeys: Tensor<'i32'> };
  scratch?: AttentionScratch;
}

/** Causal grouped-query attention with rotary embedding over a {@link KVCache} layer. */
export class Attention {
  readonly headDim: number;
  readonly valueDim: number;
  /** What query, key and value read. */
  readonly input: SharedInput;
  readonly #rope: RopeOptions;
  readonly #mix: MixOptions;

  constructor(readonly options: AttentionOptions) {
    const { query, key, value, output, numHeads, numKvHeads, isa, threads } = options;
    const { latent } = options;
    this.input = new SharedInput([query, key, value]);
    this.headDim = query.outFeatures / numHeads;
    this.valueDim = value.outFeatures / numKvHeads;
    const keyDim = this.headDim - (latent?.rotaryDim ?? 0);
    const sizes: [string, number, number, string][] = [
      ['key.outFeatures', key.outFeatures, keyDim * numKvHeads, 'numKvHeads * head_dim'],
      ['output.inFeatures', output.inFeatures, this.valueDim * numHeads, 'numHeads * value_dim'],
    ];
    if (latent === undefined) {
      sizes.push(
        ['key.inFeatures', key.inFeatures, query.inFeatures, 'query.inFeatures'],
        ['value.inFeatures', value.inFeatures, query.inFeatures, 'query.inFeatures'],
      );
    }
    for (const [name, actual, expected, source] of sizes) {
      if (actual !== expected || !Number.isInteger(expected)) {
        throw argumentError(
          'BL_INVALID_SHAPE',
          `Attention: ${name} is ${actual}, expected ${expected} (= ${source})`,
        );
      }
    }
    const run: RunOptions = {
      ...(isa === undefined ? {} : { isa }),
      ...(threads === undefined ? {} : { threads }),
    };
    // Where activations are rounded to int8 anyway, prompts are multiplied in bf16 (a matrix unit, where there is one).
    const compute = query.compute === 'f32' ? 'f32' : 'bf16';
    const { scale } = options;
    this.#mix = {
      ...run,
      causal: true,
      window: options.window ?? 0,
      compute,
      ...(scale === undefined ? {} : { scale: scale / Math.sqrt(this.headDim) }),
    };
    const { mode, theta, rotaryDim, scaling } = options.rope;
    this.#rope = {
      ...run,
      mode,
      theta,
      rotaryDim,
      ...(scaling === undefined ? {} : { scaling }),
      ...(options.freqFactors === undefined ? {} : { freqFactors: options.freqFactors }),
    };
  }

  /** New memory for M rows. */
  scratch(rows: number): AttentionScratch {
    const { numHeads, numKvHeads } = this.options;
    const view = (heads: number, dim: number): HeadsView => {
      const tensor = Tensor.empty('f32', [rows, heads, dim], this.options.query.weight.device);
      return { heads: tensor, rows: tensor.reshape([rows, heads * dim]) };
    };
    return {
      query: view(numHeads, this.headDim),
      key: view(numKvHeads, this.headDim),
      value: view(numKvHeads, this.valueDim),
      mixed: view(numHeads, this.valueDim),
    };
  }

  /**
   * @param x [M, hidden], or what {@link input} made of it
   * @param residual [M, hidden], added to the result; may be `out`
   * @returns [M, hidden]: `out` (may be x), or a new f32 tensor
   */
  forward(
    x: Tensor<FloatDType> | PreparedActivations,
    step: AttentionStep,
    out?: Tensor<'f32'>,
    residual?: Tensor<'f32'>,
  ): Tensor<'f32'> {
    const { options } = this;
    const rows = x.shape[0] ?? 0;
    const { cache, start, positions, scratch = this.scratch(rows) } = step;
    const place = placeIn(cache, start, rows);
    const value = place?.valueRows ?? scratch.value.rows;
    const query = scratch.query.heads;
    const key = scratch.key.heads;
    if (options.latent !== undefined) {
      options.latent.project(x as Tensor<'f32'>, options.query, {
        query: scratch.query.rows,
        key,
        value,
      });
    } else {
      options.query.forward(x, scratch.query.rows);
      options.key.forward(x, scratch.key.rows);
      options.value.forward(x, value);
    }
    normalize(options.queryNorm, scratch.query);
    normalize(options.keyNorm, scratch.key);
    if (isMixing(cache)) {
      cache.mix({
        ...{ query, key, value: scratch.value.heads, positions },
        rope: this.#rope,
        attention: this.#mix,
        out: scratch.mixed.heads,
      });
      return options.output.forward(scratch.mixed.rows, out, residual);
    }
    rope(query, positions, { ...this.#rope, out: query });
    const rotated = place?.keys ?? key;
    rope(key, positions, { ...(this.#rope as RopeOptions<'f32' | 'f16'>), out: rotated });
    const mixed = { ...this.#mix, out: scratch.mixed.heads };
    if (isPaged(cache)) {
      cache.append(key, scratch.value.heads);
      this.#mixPages(query, cache, scratch.mixed.heads);
    } else if (place !== undefined) {
      attention(query, place.allKeys, place.allValues, mixed);
    } else {
      kvWrite(key, scratch.value.heads, positions, cache);
      attention(query, cache.keys, cache.values, { ...mixed, ...step.sequence });
    }
    return options.output.forward(scratch.mixed.rows, out, residual);
  }

  /** Attention over pages, and the weights of the last queries where the cache wants them. */
  #mixPages(query: Tensor<'f32'>, cache: PagedLayer, out: Tensor<'f32'>): void {
    const { probabilities, scores, latest, compute } = cache;
    const segments = cache.segments();
    const rows = query.shape[0] as number;
    const observed = probabilities?.shape[1] ?? 0;
    const options = { ...this.#mix, compute };
    if (probabilities !== undefined && observed === rows) {
      decodeAttention(query, segments, { ...options, probabilities, out });
      return;
    }
    decodeAttention(query, segments, { ...options, ...(scores && { scores }), out });
    // A second look at the keys, of a few queries only.
    const last = (count: number): Tensor<'f32'> => query.slice(rows - count, rows);
    if (probabilities !== undefined) {
      decodeAttention(last(observed), segments, { ...options, probabilities });
    }
    if (latest !== undefined) {
      decodeAttention(last(latest.queries as number), segments, { ...options, scores: latest });
    }
  }

  /** The attention with its weights on a device. */
  async to(device: DeviceName): Promise<Attention> {
    const { query, key, value, output, queryNorm, keyNorm, freqFactors } = this.options;
    await this.options.latent?.to(device);
    return new Attention({
      ...this.options,
      query: await query.to(device),
      key: await key.to(device),
      value: await value.to(device),
      output: await output.to(device),
      queryNorm: await queryNorm?.to(device),
      keyNorm: await keyNorm?.to(device),
      freqFactors: await freqFactors?.to(device),
    });
  }

  /** Lets go of the weights. */
  dispose(): void {
    const { query, key, value, output, queryNorm, keyNorm, latent } = this.options;
    for (const part of [query, key, value, output, queryNorm, keyNorm, latent]) part?.dispose();
  }
}

/** The rows of a cache that new tokens get, and all up to these; undefined: it takes them as operators tell it. */
function placeIn(cache: AttentionStep['cache'], start: number | undefined, rows: number) {
  if (isPaged(cache) || isMixing(cache) || start === undefined) return undefined;
  const end = start + rows;
  return {
    keys: cache.keys.slice(start, end),
    valueRows: cache.valueRows.slice(start, end),
    allKeys: cache.keys.slice(0, end),
    allValues: cache.values.slice(0, end),
  };
}

/** In place; of each head, or of a row if the norm is that long. */
function normalize(norm: RMSNorm | undefined, { heads, rows }: HeadsView): void {
  if (norm === undefined) return;
  const values = norm.weight.size === heads.shape[2] ? heads : rows;
  norm.forward(values, values);
}
