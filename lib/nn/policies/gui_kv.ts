import { isIn } from './look_m.js';
import {
  checkPolicyOptions,
  latest,
  perCache,
  policy,
  poolOf,
  type PositionRange,
  rangesOf,
  realOption,
  type SnapKVOptions,
  wholeOption,
  windowOf,
} from './parts.js';
import type { CachePolicy, LayerContent, LayerView } from './policy.js';
import { meanPool } from './scores.js';
import { bestAndNewest } from './selections.js';

/** Options of {@link guiKV}. */
export interface GuiKVOptions extends SnapKVOptions {
  /** Positions of screenshots; the last one that has begun is the current one. Default: none. */
  screens?: readonly PositionRange[];
  /** How much saliency counts beside attention. Default 2. */
  alpha?: number;
  /** Of the softmax over the current screenshot. Default 3.5. */
  temperature?: number;
  /** Vectors at most that span the current screenshot's keys. Default 32. */
  rank?: number;
}

/**
 * GUI-KV (Huang et al. 2025, arXiv:2510.00536): every layer has the same budget. Score = sum of the weights of the last `window` queries, the
 * mean of `pool` neighbours, by kv head (the paper repeats keys by query head), and
 *
 * - saliency: keys of the current screenshot get `alpha * softmax(z / temperature)` on top, z the norms of the hidden states that the layer
 *   reads, standardized over the screenshot;
 * - redundancy: Q is an orthonormal basis (QR) of the first `rank` independent keys of the current screenshot; of the keys k of earlier
 *   screenshots, the share `1 - budget / keys` with the smallest `|k - Q Q^T k|` is set to 0.
 *
 * Without screenshots neither applies: snapKV with a mean instead of a maximum.
 *
 * @param options `budget`; `window` (default 32, budget / 2 at most), `pool` (5), `screens` (none), `alpha` (2), `temperature` (3.5), `rank` (32)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, or `screens` that are no list, `BL_OUT_OF_RANGE` for a `budget`
 *   below 2, a `window` that is not 1 to `budget - 1`, a `pool` that is not odd, screens that are empty, overlap or do not rise, an `alpha`
 *   below 0, a `temperature` below 0.001 or a `rank` below 1
 *
 * @example
 * ```ts
 * import { guiKV, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: guiKV({ budget: 512, screens: [[10, 200]] }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function guiKV(options: GuiKVOptions): CachePolicy {
  const name = 'guiKV';
  checkPolicyOptions(name, options, 'window', 'pool', 'screens', 'alpha', 'temperature', 'rank');
  const { budget } = options;
  const window = windowOf(name, options);
  const pool = poolOf(name, options.pool);
  const screens = rangesOf(name, 'screens', options.screens);
  const alpha = realOption(name, 'alpha', options.alpha ?? 2, 0);
  const temperature = realOption(name, 'temperature', options.temperature ?? 3.5, 1e-3);
  const rank = wholeOption(name, 'rank', options.rank ?? 32, 1);
  /** By layer: norms of the hidden states of screenshots, by position. */
  const memory = perCache(() => new Map<number, Map<number, number>>());
  return policy({
    name,
    budget,
    hidden: screens.length > 0,
    sums: ['sums'],
    observes: (count) => Math.min(count, window),
    score: (before, observation, step) => {
      const positions = step.positions[0] as Int32Array;
      remember(memory(step), screens, step.layer, positions, step.hiddenNorms);
      if (observation === undefined) return [...before];
      return latest(before, observation, step).map((sum) => meanPool(sum, pool));
    },
    select: (view, count, content) => {
      const known = memory(view).get(view.layer) ?? new Map<number, number>();
      const scores = view.scores.map((list, head) => {
        const positions = view.positions[head] as Int32Array;
        const next = positions[view.keys - 1] as number;
        const started = screens.filter(([begin]) => begin <= next);
        const current = started.at(-1);
        if (current === undefined) return list;
        const salient = addSaliency(list, positions, current, known, alpha, temperature);
        const earlier = started.slice(0, -1);
        const share = 1 - count / view.keys;
        return dropRedundant(salient, view, head, content, current, earlier, rank, share);
      });
      return bestAndNewest({ ...view, scores }, count, window);
    },
  });
}

function remember(
  norms: Map<number, Map<number, number>>,
  screens: readonly PositionRange[],
  layer: number,
  positions: Int32Array,
  added: Float32Array,
): void {
  const known = norms.get(layer) ?? new Map<number, number>();
  norms.set(layer, known);
  for (const [i, norm] of added.entries()) {
    const position = positions[positions.length - added.length + i] as number;
    if (isIn(screens, position)) known.set(position, norm);
  }
}

/** `scores + alpha * softmax((norm - mean) / deviation / temperature)` over the keys of the screenshot. */
function addSaliency(
  scores: Float32Array,
  positions: Int32Array,
  current: PositionRange,
  norms: ReadonlyMap<number, number>,
  alpha: number,
  temperature: number,
): Float32Array {
  const rows = [...positions.keys()].filter((s) => isIn([current], positions[s] as number));
  const result = scores.slice();
  if (rows.length < 2) return result;
  const values = rows.map((s) => norms.get(positions[s] as number) ?? 0);
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const squares = values.reduce((a, b) => a + (b - mean) ** 2, 0);
  const deviation = Math.sqrt(squares / (values.length - 1)) + 1e-8;
  const z = values.map((value) => (value - mean) / deviation / temperature);
  const largest = Math.max(...z);
  const powers = z.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  for (const [i, s] of rows.entries()) {
    result[s] = (result[s] as number) + (alpha * (powers[i] as number)) / sum;
  }
  return result;
}

/** Scores, 0 for the `share` of the earlier screenshots' keys that the current one's explain best. */
function dropRedundant(
  scores: Float32Array,
  { positions }: LayerView,
  head: number,
  { keys }: LayerContent,
  current: PositionRange,
  earlier: readonly PositionRange[],
  rank: number,
  share: number,
): Float32Array {
  const places = positions[head] as Int32Array;
  const [, heads = 1, dim = 0] = keys.shape;
  const data = keys.data as Float32Array;
  const rowsIn = (ranges: readonly PositionRange[]): number[] =>
    [...places.keys()].filter((s) => isIn(ranges, places[s] as number));
  const key = (row: number): Float32Array =>
    data.subarray((row * heads + head) * dim, (row * heads + head + 1) * dim);
  const old = rowsIn(earlier);
  const count = Math.floor(share * old.length);
  if (count <= 0) return scores;
  const basis = orthonormalBasis(rowsIn([current]).map(key), rank);
  const residuals = old.map((row) => residualNorm(key(row), basis));
  const order = [...old.keys()].sort(
    (a, b) => (residuals[a] as number) - (residuals[b] as number) || a - b,
  );
  for (const i of order.slice(0, count)) scores[old[i] as number] = 0;
  return scores;
}

/** QR by modified Gram-Schmidt, in double: the first `rank` vectors that do not depend on those before (to 1e-6 of their length). */
export function orthonormalBasis(vectors: readonly Float32Array[], rank: number): Float64Array[] {
  const basis: Float64Array[] = [];
  for (const vector of vectors) {
    if (basis.length === rank) break;
    const rest = Float64Array.from(vector);
    const length = Math.hypot(...rest);
    for (const q of basis) subtract(rest, q);
    for (const q of basis) subtract(rest, q); // twice is enough (Kahan)
    const left = Math.hypot(...rest);
    if (!(left > 1e-6 * length)) continue;
    basis.push(rest.map((x) => x / left));
  }
  return basis;
}

/** |v - Q Q^T v| */
export function residualNorm(vector: Float32Array, basis: readonly Float64Array[]): number {
  const rest = Float64Array.from(vector);
  for (const q of basis) subtract(rest, q);
  return Math.hypot(...rest);
}

function subtract(rest: Float64Array, q: Float64Array): void {
  let product = 0;
  for (let i = 0; i < q.length; i++) product += (rest[i] as number) * (q[i] as number);
  for (let i = 0; i < q.length; i++) rest[i] = (rest[i] as number) - product * (q[i] as number);
}
