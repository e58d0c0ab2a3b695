// Drives a policy without a cache: attention weights and keys in, what stays out. Everything as plain nested arrays.

import { Tensor } from '../../../lib/index.js';
import type { CachePolicy, LayerContent, ScoreStep } from '../../../lib/nn/index.js';
import { randomSource } from '../../reference/random.js';

/** [heads][queries][keys] */
export type Weights = number[][][];
/** [keys][kv heads][dim] */
export type Rows = number[][][];

/** Causal rows that sum to 1, of queries that are the last tokens. */
export function weights(heads: number, queries: number, keys: number, seed: number): Weights {
  const random = randomSource(seed);
  return nested(heads, () =>
    Array.from({ length: queries }, (_, q) => {
      const seen = keys - queries + q + 1;
      const raw = Array.from({ length: keys }, (_, s) => (s < seen ? random() ** 4 : 0));
      const sum = raw.reduce((a, b) => a + b, 0);
      return raw.map((x) => Math.fround(x / sum));
    }),
  );
}

export function rows(keys: number, heads: number, dim: number, seed: number): Rows {
  const random = randomSource(seed);
  return nested(keys, () => nested(heads, () => nested(dim, () => Math.fround(random() * 2 - 1))));
}

export const nested = <T>(count: number, make: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i));

/** One layer that a policy is asked about. */
export interface Layer {
  positions: number[];
  scores: Float32Array[];
  observed: Weights | undefined;
  keys: Rows;
  values: Rows;
}

export const newLayer = (kvHeads: number): Layer => ({
  positions: [],
  scores: nested(kvHeads, () => new Float32Array(0)),
  observed: undefined,
  keys: [],
  values: [],
});

function observation(observed: Weights | undefined) {
  if (observed === undefined) return undefined;
  const [queries, keys] = [observed[0]?.length ?? 0, observed[0]?.[0]?.length ?? 0];
  const data = Float32Array.from(observed.flat(2));
  const probabilities = new Tensor('f32', data, [observed.length, queries, keys]);
  return { probabilities, numHeads: observed.length, queries, keys };
}

const tensor = (list: Rows): Tensor<'f32'> =>
  new Tensor('f32', Float32Array.from(list.flat(2)), [
    list.length,
    list[0]?.length ?? 0,
    list[0]?.[0]?.length ?? 0,
  ]);

/** Adds tokens and scores each layer; with `isProbe` only scores. */
export function step(
  policy: CachePolicy,
  layers: Layer[],
  added: number,
  seen: (layer: number) => Weights | undefined,
  options: Partial<ScoreStep> & { first?: number; rows?: (layer: number) => Rows } = {},
): void {
  for (const [layer, state] of layers.entries()) {
    const kvHeads = state.scores.length;
    const first = options.first ?? (state.positions.at(-1) ?? -1) + 1;
    const fresh = options.rows?.(layer) ?? rows(added, kvHeads, 4, 100 * layer + first);
    state.keys = [...state.keys, ...fresh];
    state.values = [
      ...state.values,
      ...fresh.map((token) => token.map((x) => x.map((y) => 2 * y))),
    ];
    state.positions = [...state.positions, ...nested(added, (t) => first + t)];
    state.scores = state.scores.map((old) =>
      Float32Array.from([...old, ...nested(added, () => 0)]),
    );
    const observed = seen(layer);
    if (observed !== undefined) state.observed = observed;
    state.scores = policy.score(state.scores, observation(state.observed), {
      cache: layers,
      layer,
      numLayers: layers.length,
      positions: state.scores.map(() => Int32Array.from(state.positions)),
      added,
      isProbe: false,
      hiddenNorms: new Float32Array(0),
      ...options,
    });
  }
}

/** What stays in each layer; and keys and values after the merge. */
export function compress(
  policy: CachePolicy,
  layers: Layer[],
  added = 2,
): { budgets: number[]; kept: number[][][]; keys: Rows[]; values: Rows[] } {
  const views = layers.map((state, layer) => ({
    cache: layers,
    layer,
    numLayers: layers.length,
    numKvHeads: state.scores.length,
    keys: state.positions.length,
    positions: state.scores.map(() => Int32Array.from(state.positions)),
    scores: state.scores,
    observed: observation(state.observed),
    added,
  }));
  const budgets = policy.budgets(views);
  const result = { budgets, kept: [] as number[][][], keys: [] as Rows[], values: [] as Rows[] };
  for (const [layer, state] of layers.entries()) {
    const view = views[layer] as (typeof views)[number];
    const content: LayerContent = { keys: tensor(state.keys), values: tensor(state.values) };
    const count = Math.min(budgets[layer] as number, view.keys);
    const kept = policy.select(view, count, content);
    policy.merge?.(view, kept, content);
    result.kept.push(kept.map((list) => [...list]));
    result.keys.push(untensor(content.keys));
    result.values.push(untensor(content.values));
  }
  return result;
}

function untensor({ data, shape }: Tensor<'f32'>): Rows {
  const [tokens = 0, heads = 0, dim = 0] = shape;
  return nested(tokens, (t) =>
    nested(heads, (h) => nested(dim, (c) => data[(t * heads + h) * dim + c] as number)),
  );
}

/** Sum over the queries of some heads of what is looked at, by key. */
export function sumOf(observed: Weights, heads: readonly number[], queries?: number): number[] {
  const keys = observed[0]?.[0]?.length ?? 0;
  return nested(keys, (s) => {
    let sum = 0;
    for (const head of heads) {
      for (const row of (observed[head] as number[][]).slice(-(queries ?? Infinity))) {
        sum += row[s] as number;
      }
    }
    return sum;
  });
}

/** Indices of the largest values below `end`, rising. */
export function largest(values: readonly number[], count: number, end = values.length): number[] {
  const order = nested(end, (i) => i).sort((a, b) => (values[b] as number) - (values[a] as number));
  return order.slice(0, count).sort((a, b) => a - b);
}

export function cosine(a: readonly number[], b: readonly number[]): number {
  const dot = (x: readonly number[], y: readonly number[]) =>
    x.reduce((sum, value, i) => sum + value * (y[i] as number), 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** sum of weights[i] * vectors[i] */
export const mix = (vectors: readonly number[][], weights: readonly number[]): number[] =>
  nested((vectors[0] as number[]).length, (c) =>
    vectors.reduce((sum, v, i) => sum + (weights[i] as number) * (v[c] as number), 0),
  );
