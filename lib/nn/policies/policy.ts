// What a compression policy is: which keys of a cache stay. Scores from attention weights, then a budget for each layer, then a
// selection for each head; the cache then compacts, after a merge where the policy has one.
import type { Tensor } from '../../tensor.js';

/** Keys of one layer as a policy sees them. */
export interface LayerView {
  /** Stands for the cache that asks: what a policy remembers from step to step belongs to it (a `WeakMap`'s key). */
  readonly cache: object;
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
  /** Tokens of the step that is just done: 1 while a text is generated. */
  readonly added: number;
}

/** Keys and values of one layer, decoded; a merge writes into them. */
export interface LayerContent {
  /** [keys, numKvHeads, headDim], rotated. */
  readonly keys: Tensor<'f32'>;
  /** [keys, numKvHeads, valueDim] */
  readonly values: Tensor<'f32'>;
}

/** What attention sums up of the observed queries' weights natively (`AttentionScores`), without keeping them. */
export type ObservedSum = 'sums' | 'squares' | 'entropy' | 'variance';

/** Attention weights of the last queries of a step, in one layer: all of them, or what {@link CachePolicy.sums} names. */
export interface Observation {
  /** [numHeads, queries, keys]; undefined where the policy has `sums` */
  readonly probabilities?: Tensor<'f32'> | undefined;
  /** Shape `[numHeads, keys]`: weights summed over queries */
  readonly sums?: Float32Array | undefined;
  /** The same of the last {@link CachePolicy.latest} queries alone */
  readonly latest?: Float32Array | undefined;
  /** Shape `[numHeads, keys]`: squares of weights summed over queries */
  readonly squares?: Float32Array | undefined;
  /** Shape `[numHeads]`: mean over queries of the weights' entropy */
  readonly entropy?: Float32Array | undefined;
  /** Shape `[numHeads]`: mean over keys of the weights' variance over queries */
  readonly variance?: Float32Array | undefined;
  readonly numHeads: number;
  readonly queries: number;
  readonly keys: number;
}

/** What a score is told of the step besides the weights. */
export interface ScoreStep {
  /** As that of {@link LayerView}. */
  readonly cache: object;
  readonly layer: number;
  readonly numLayers: number;
  /** Position in the text of each head's keys, [numKvHeads][keys]. */
  readonly positions: readonly Int32Array[];
  /** Tokens of the step; they are the last ones of the keys. */
  readonly added: number;
  /** The queries are those of {@link CachePolicy.probe}, which are no tokens of the text and not among the keys. */
  readonly isProbe: boolean;
  /** Norms of the added tokens' hidden states at the layer's input, [added]; empty unless {@link CachePolicy.hidden}. */
  readonly hiddenNorms: Float32Array;
}

/** Decides which keys of a {@link PagedDecoderCache} stay. One object may serve several caches. */
export interface CachePolicy {
  readonly name: string;
  /** Keys of a layer that stay, on average over the layers. */
  readonly budget: number;
  /** Tokens of a step at most, so that the cache never holds more than the budget and these. Default 256. */
  readonly block?: number;
  /**
   * Tokens whose attention decides instead: before the cache is compressed within a prompt, they are computed behind the
   * step's tokens, scored, and forgotten.
   */
  readonly probe?: readonly number[];
  /** Whether scores want the norms of hidden states. */
  readonly hidden?: boolean;
  /** What scores need of the observed weights, so that these need not be kept. Default: the weights themselves. */
  readonly sums?: readonly ObservedSum[] | undefined;
  /** With `sums`: how many of the last queries are summed apart as well, at the price of a second look at the keys by these. */
  readonly latest?: number;
  /** How many of the last queries of a step of `count` tokens are to be observed; 0: none. */
  observes(count: number): number;
  /** Scores of a layer's keys after a step: `before` are those of the keys that were there, 0 for new ones. */
  score(
    before: readonly Float32Array[],
    observation: Observation | undefined,
    step: ScoreStep,
  ): Float32Array[];
  /** Keys that stay in each layer, once layers have been scored. */
  budgets(layers: readonly LayerView[]): number[];
  /** Indices of the keys that stay, rising: `count` for each head. */
  select(view: LayerView, count: number, content: LayerContent): Int32Array[];
  /** Gives what goes to what stays: changes rows of `content` that are in `kept[head]`. Default: it is lost. */
  merge?(view: LayerView, kept: readonly Int32Array[], content: LayerContent): void;
}
