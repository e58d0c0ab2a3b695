// What a policy does to the layers of a PagedDecoderCache: scores after a step, and which keys stay. It runs as a list of stages, at
// once or with the event loop's turns between them.

import type { AttentionScores } from '../../ops/attention/options.js';
import { sequence } from '../../run.js';
import { Tensor } from '../../tensor.js';
import { checkedBudgets, checkedScores, checkedSelection } from '../policies/contract.js';
import type { CachePolicy, LayerContent, LayerView, Observation } from '../policies/policy.js';
import type { PagedKVBatch } from './paged_kv_batch.js';
import type { PagedKVCache } from './paged_kv_cache.js';
import type { PagedKVSequence } from './paged_kv_sequence.js';

/** A layer's sequence, and what a policy knows of its keys. */
export interface CachedLayer {
  sequence: PagedKVSequence;
  positions: Int32Array[];
  scores: Float32Array[];
  observed: Observation | undefined;
}

/** What a step has left for the policy, of one layer. */
export interface ObservedLayer {
  readonly probabilities: Tensor<'f32'> | undefined;
  readonly scores?: AttentionScores | undefined;
  readonly latest?: AttentionScores | undefined;
  readonly hidden: Tensor<'f32'> | undefined;
}

/** A stage: `work` runs operators, which may be recorded; without it, JavaScript has run, and others may have a turn. */
export type Stage = (() => void) | undefined;
export type Stages = Generator<Stage, void, undefined>;

/** All stages at once. */
export function runStages(stages: Stages): void {
  for (const work of stages) work?.();
}

/** Operators on a worker thread, and a turn of the event loop after each stage of JavaScript. */
export async function runStagesAsync(stages: Stages): Promise<void> {
  for (const work of stages) {
    if (work === undefined) await new Promise((resolve) => setImmediate(resolve));
    else await sequence(work);
  }
}

/** Layers of one cache and the policy that compresses them. */
export class Compaction {
  readonly layers: CachedLayer[];
  #added = 0;

  constructor(
    readonly policy: CachePolicy,
    private readonly pool: PagedKVCache,
    layers: CachedLayer[],
  ) {
    this.layers = layers;
  }

  /** Keys of all layers. */
  get keys(): number {
    return this.layers.reduce((sum, { sequence: { length } }) => sum + length, 0);
  }

  /** Adds `count` tokens, whose first stands at `first`, to what is known, and scores all keys. */
  *score(count: number, first: number, steps: readonly ObservedLayer[]): Stages {
    const added = Int32Array.from({ length: count }, (_, t) => first + t);
    this.#added = count;
    // Of all layers first: a policy that throws leaves none without.
    for (const layer of this.layers) {
      layer.positions = layer.positions.map((old) => joined(old, added));
      layer.scores = layer.scores.map((old) => joined(old, new Float32Array(count)));
    }
    for (const [i] of this.layers.entries()) {
      this.#scoreLayer(i, steps[i] as ObservedLayer, false);
      yield undefined;
    }
  }

  /** Scores all keys by the weights of tokens that are not among them. */
  *scoreProbe(steps: readonly ObservedLayer[]): Stages {
    for (const [i] of this.layers.entries()) {
      this.#scoreLayer(i, steps[i] as ObservedLayer, true);
      yield undefined;
    }
  }

  #scoreLayer(i: number, observed: ObservedLayer, isProbe: boolean): void {
    const { probabilities, scores, latest, hidden } = observed;
    const { policy, layers } = this;
    const layer = layers[i] as CachedLayer;
    if (probabilities !== undefined) {
      layer.observed = observationOf(probabilities, layer.sequence.length, isProbe);
    }
    if (scores !== undefined) {
      const newest = policy.latest === undefined ? undefined : (latest ?? scores);
      layer.observed = observedScores(scores, newest, layer.sequence.length);
    }
    const given = policy.score(layer.scores, layer.observed, {
      cache: this,
      layer: i,
      numLayers: layers.length,
      positions: layer.positions,
      added: isProbe ? 0 : this.#added,
      isProbe,
      hiddenNorms: hidden === undefined ? new Float32Array(0) : rowNorms(hidden),
    });
    layer.scores = checkedScores(policy, given, this.pool.numKvHeads, layer.sequence.length);
  }

  /** Lets go of what the policy does not keep. */
  *compress(): Stages {
    const { policy, layers } = this;
    const views = layers.map((layer, i) => this.#view(layer, i));
    const budgets = checkedBudgets(policy, views);
    yield undefined;
    for (const [i, layer] of layers.entries()) {
      const view = views[i] as LayerView;
      const count = budgets[i] as number;
      if (count < view.keys) yield* this.#keep(layer, view, count);
    }
  }

  #view({ positions, scores, observed, sequence }: CachedLayer, layer: number): LayerView {
    return {
      cache: this,
      layer,
      numLayers: this.layers.length,
      numKvHeads: this.pool.numKvHeads,
      keys: sequence.length,
      positions,
      scores,
      observed,
      added: this.#added,
    };
  }

  /** Keeps `count` keys of each head. */
  *#keep(layer: CachedLayer, view: LayerView, count: number): Stages {
    let content: LayerContent | undefined;
    yield () => {
      const { k, v } = layer.sequence.read(0);
      content = { keys: k, values: v as Tensor<'f32'> };
    };
    const all = content as unknown as LayerContent;
    const kept = checkedSelection(this.policy, this.policy.select(view, count, all), view, count);
    yield undefined;
    this.policy.merge?.(view, kept, all);
    yield undefined;
    const keys = picked(all.keys, kept);
    const values = picked(all.values, kept);
    all.keys.dispose();
    all.values.dispose();
    // Pages first go back, so that the budget need not hold both.
    layer.sequence.free();
    layer.sequence = this.pool.create();
    layer.positions = layer.positions.map((old, head) => at(old, kept[head] as Int32Array));
    layer.scores = layer.scores.map((old, head) => at(old, kept[head] as Int32Array));
    const batch: PagedKVBatch = this.pool.batch([layer.sequence], keys.shape[0] as number);
    yield () => batch.append(0, keys, values);
    batch.commit();
    keys.dispose();
    values.dispose();
  }
}

/** Of a probe, only the weights of the keys that are there: its own tokens see each other as well. */
function observationOf(
  probabilities: Tensor<'f32'>,
  length: number,
  isProbe: boolean,
): Observation {
  const [heads, queries, keys] = probabilities.shape as [number, number, number];
  const numHeads = heads;
  if (!isProbe || keys === length) return { probabilities, numHeads, queries, keys };
  const from = probabilities.data as Float32Array;
  const data = new Float32Array(heads * queries * length);
  for (let row = 0; row < heads * queries; row++) {
    data.set(from.subarray(row * keys, row * keys + length), row * length);
  }
  return {
    probabilities: new Tensor('f32', data, [heads, queries, length]),
    numHeads,
    queries,
    keys: length,
  };
}

/** The same of sums; entropy and variance of a probe are those over its own keys too. */
function observedScores(
  scores: AttentionScores,
  latest: AttentionScores | undefined,
  length: number,
): Observation {
  const rows = (tensor: Tensor<'f32'> | undefined): Float32Array | undefined => {
    if (tensor === undefined) return undefined;
    const [, heads = 0, keys = length] = tensor.shape;
    const from = tensor.data as Float32Array;
    if (keys === length) return from;
    const to = new Float32Array(heads * length);
    for (let head = 0; head < heads; head++) {
      to.set(from.subarray(head * keys, head * keys + length), head * length);
    }
    return to;
  };
  const { sums, squares, entropy, variance, queries = 0 } = scores;
  return {
    sums: rows(sums),
    latest: rows(latest?.sums),
    squares: rows(squares),
    entropy: rows(entropy),
    variance: rows(variance),
    numHeads: (sums ?? squares ?? entropy ?? variance)?.shape[1] ?? 0,
    queries,
    keys: length,
  };
}

function rowNorms({ data: all, shape }: Tensor<'f32'>): Float32Array {
  const [rows = 0, columns = 0] = shape;
  const data = all as Float32Array;
  return Float32Array.from({ length: rows }, (_, row) => {
    let sum = 0;
    for (let i = row * columns; i < (row + 1) * columns; i++) sum += (data[i] as number) ** 2;
    return Math.sqrt(sum);
  });
}

/** Rows `kept[head]` of each head, which are equally many. */
function picked({ data: all, shape }: Tensor<'f32'>, kept: readonly Int32Array[]): Tensor<'f32'> {
  const [, heads = 1, dim = 0] = shape;
  const count = (kept[0] as Int32Array).length;
  const source = all as Float32Array;
  const data = new Float32Array(count * heads * dim);
  for (const [head, indices] of kept.entries()) {
    for (let t = 0; t < count; t++) {
      const from = ((indices[t] as number) * heads + head) * dim;
      data.set(source.subarray(from, from + dim), (t * heads + head) * dim);
    }
  }
  return new Tensor('f32', data, [count, heads, dim]);
}

function joined<A extends Int32Array | Float32Array>(a: A, b: A): A {
  const all = new (a.constructor as new (length: number) => A)(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}

function at<A extends Int32Array | Float32Array>(from: A, indices: Int32Array): A {
  const to = new (from.constructor as new (length: number) => A)(indices.length);
  for (const [i, index] of indices.entries()) to[i] = from[index] as number;
  return to;
}
