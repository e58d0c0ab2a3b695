// What a decoder asks of a cache of keys and values.
import type {
  AttentionCompute,
  AttentionOptions,
  AttentionScores,
  KVSegment,
} from '../ops/attention/options.js';
import type { RopeOptions } from '../ops/rope/rope.js';
import type { FloatDType, Tensor } from '../tensor.js';
import type { LayerCache } from './kv_cache.js';

/** One layer of a cache in pages, during a step. */
export interface PagedLayer {
  /** Adds the step's keys (rotated) and values, [tokens, numKvHeads, headDim | valueDim]. */
  append(keys: Tensor<FloatDType>, values: Tensor<FloatDType>): void;
  /** What attention reads, once they are added. */
  segments(): readonly KVSegment[];
  readonly compute: AttentionCompute;
  /** Receives the attention weights of the step's last queries, [numHeads, queries, keys]; undefined: not asked for. */
  readonly probabilities: Tensor<'f32'> | undefined;
  /** Receives what is to be said of those weights instead, of the one sequence. */
  readonly scores?: AttentionScores | undefined;
  /** With `scores`: receives the same of fewer of the last queries. */
  readonly latest?: AttentionScores | undefined;
  /** Receives the hidden states that the layer reads, [tokens, hidden]; undefined: not asked for. */
  readonly hidden?: Tensor<'f32'> | undefined;
}

/** Queries, keys and values of a step's new tokens, none of them rotated. */
export interface UnrotatedStep {
  /** [tokens, numHeads, headDim]; may be written */
  readonly query: Tensor<'f32'>;
  /** [tokens, numKvHeads, headDim]; may be written */
  readonly key: Tensor<'f32'>;
  /** [tokens, numKvHeads, valueDim] */
  readonly value: Tensor<'f32'>;
  /** [tokens] */
  readonly positions: Tensor<'i32'>;
  readonly rope: RopeOptions;
  /** How attention is computed; no `out`. */
  readonly attention: AttentionOptions;
  /** [tokens, numHeads, valueDim], to be written. */
  readonly out: Tensor<'f32'>;
}

/** One layer of a cache that does rotation and attention by itself, with operators only: they may be recorded. */
export interface MixingLayer {
  /** Rotates queries and keys, adds keys and values to what is kept, and writes the attention over all. */
  mix(step: UnrotatedStep): void;
}

/** New tokens on their way through the layers. */
export interface CacheStep {
  /** Where the first of them stands in the text. */
  readonly position: number;
  /** Where layer `index` puts its keys and values. */
  layer(index: number): LayerCache | PagedLayer | MixingLayer;
  /** They are there, once what was recorded has run. */
  commit(): void;
  /** The same; where that takes long, other work has its turn meanwhile. Default: {@link commit}. */
  commitAsync?(): Promise<void>;
  /** They are not. */
  abort(): void;
}

/** A cache that {@link Decoder.forward} works with: {@link KVCache} or {@link PagedDecoderCache}. */
export interface DecoderCache {
  readonly numLayers: number;
  /** Tokens of a text that it takes. */
  readonly capacity: number;
  /** Tokens of the text so far. */
  readonly length: number;
  /** Throws `BL_OUT_OF_RANGE` unless `count` more tokens have room. */
  need(count: number): void;
  /** Takes the cache for one call; the returned function gives it back. */
  acquire(): () => void;
  /** Room for `count` more tokens, which are there after the step's commit. */
  begin(count: number): CacheStep;
  /** Tokens of a step at most; default: as many as the decoder takes at once. */
  readonly stepTokens?: number;
  /** Tokens that {@link probe} may ask for at most. Default 0. */
  readonly probeTokens?: number;
  /** After a step's commit: tokens to compute for their attention weights alone. Undefined: none are wanted. */
  probe?(): { tokens: readonly number[]; step: CacheStep } | undefined;
  /** Frees the memory; any later use but this throws `BL_DETACHED`. */
  dispose(): void;
}

export const isPaged = (layer: LayerCache | PagedLayer | MixingLayer): layer is PagedLayer =>
  'append' in layer;

export const isMixing = (layer: LayerCache | PagedLayer | MixingLayer): layer is MixingLayer =>
  'mix' in layer;
