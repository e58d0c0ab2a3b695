// What a compression policy is: which keys of a cache stay. It sees attention weights, never keys: scores, then a budget for each
// layer, then a selection for each head; the cache then compacts.
import type { Tensor } from '../../tensor.js';

/** Keys of one layer as a policy sees them. */
export interface LayerView {
  readonly layer: number;
  readonly numLayers: number;
  readonly numKvHeads: number;
  /** Keys in the cache now. */
  readonly keys: number;
  /** Position in the text of each head's keys, [numKvHeads][keys], rising. */
  readonly positions: readonly Int32Array[];
  /** Scores of the keys by head, [numKvHeads][keys]; of a policy that wants none, empty. */
  readonly scores: readonly Float32Array[];
  /** Attention of the last queries that were observed. */
  readonly observed: Observation | undefined;
}

/** Attention weights of the last queries of a step, in one layer. */
export interface Observation {
  /** [numHeads, queries, keys] */
  readonly probabilities: Tensor<'f32'>;
  readonly queries: number;
  readonly keys: number;
}

/** Decides which keys of a {@link PagedDecoderCache} stay. One object serves one cache. */
export interface CachePolicy {
  readonly name: string;
  /** Keys of a layer that stay, on average over the layers. */
  readonly budget: number;
  /** How many of the last queries of a step of `count` tokens are to be observed; 0: none. */
  observes(count: number): number;
  /** Scores of a layer's keys after a step: `before` are those of the keys that were there, 0 for new ones. */
  score(before: readonly Float32Array[], observation: Observation | undefined): Float32Array[];
  /** Keys that stay in each layer, once layers have been scored. */
  budgets(layers: readonly LayerView[]): number[];
  /** Indices of the keys that stay, rising: `count` for each head. */
  select(view: LayerView, count: number): Int32Array[];
}
