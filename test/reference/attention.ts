/**
 * Scaled dot-product attention from its formula (native/include/bitloom_attention.h), in double: of each query and head,
 * which keys are seen, their scores, softmax, weighted sum.
 */
import type {
  AttentionOptions,
  AttentionRope,
  FloatDType,
  RaggedOptions,
  Tensor,
} from '../../lib/index.js';
import { ropeReference } from './rope.js';

export type ReferenceOptions = Omit<
  AttentionOptions<FloatDType> & RaggedOptions,
  'lse' | 'probabilities' | 'out' | 'isa' | 'threads' | 'stream' | 'compute'
>;

export interface AttentionReference {
  /** [queries, heads, valueDim] */
  output: Float64Array;
  /** [queries, heads] */
  lse: Float64Array;
  /** [heads, queries, keys of the longest sequence] */
  probabilities: Float64Array;
  /**
   * [queries, heads]: what one rounding step (relative 1, so multiply by an epsilon) of each product and sum that makes a
   * score moves the scores by, averaged with the softmax's weights. A result moves by at most twice that times |v|.
   */
  wobble: Float64Array;
}

/** One sequence's rows in all of them: first and number of queries and keys. */
export interface Sequence {
  query: number;
  queries: number;
  key: number;
  keys: number;
}

const at = (values: ArrayLike<number>, i: number): number => values[i] as number;

export function sequencesOf(q: Tensor, k: Tensor, options: ReferenceOptions): Sequence[] {
  const { cuQueries, cuKeys } = options;
  if (cuQueries === undefined || cuKeys === undefined) {
    return [{ query: 0, queries: q.shape[0] as number, key: 0, keys: k.shape[0] as number }];
  }
  const queries = cuQueries.toArray();
  const keys = cuKeys.toArray();
  return queries.slice(1).map((end, i) => ({
    query: at(queries, i),
    queries: end - at(queries, i),
    key: at(keys, i),
    keys: at(keys, i + 1) - at(keys, i),
  }));
}

/** Whether query t (of n) sees key s (of m), masks apart: the sentences of the header one after the other. */
function rangeOf(options: ReferenceOptions) {
  const { causal = false, prefix = 0, window = 0, sinkTokens = 0 } = options;
  const b = options.causalBlock || 1;
  const windows = options.windows?.toArray();
  const sinkCounts = options.sinkCounts?.toArray();
  return (h: number, t: number, n: number, s: number, m: number): boolean => {
    const d = t + m - n;
    if (causal && !(s <= d || s < prefix || s < b * (Math.floor(d / b) + 1))) return false;
    const w = windows?.[h] ?? window;
    if (w === 0 || s < (sinkCounts?.[h] ?? sinkTokens)) return true;
    return s > d - w && (causal || s < d + w);
  };
}

/** The element [head or 0, row, column] of a mask. */
function maskReader(mask: Tensor): (h: number, row: number, column: number) => number {
  const values = mask.toArray();
  const [heads, rows, columns] = mask.shape as [number, number, number];
  return (h, row, column) => at(values, ((heads === 1 ? 0 : h) * rows + row) * columns + column);
}

/** Whether a sequence's query t sees its key s with head h. */
export type Sees = (sequence: Sequence, t: number, h: number, s: number) => boolean;

export function sightOf(options: ReferenceOptions): Sees {
  const { mask, blockMask } = options;
  const columns = mask?.shape[2] ?? 0;
  const readMask = mask === undefined ? undefined : maskReader(mask);
  const hidden = mask?.dtype === 'f32' ? Number.NEGATIVE_INFINITY : 0;
  const isInRange = rangeOf(options);
  const readBlocks = blockMask === undefined ? undefined : maskReader(blockMask.mask);
  return ({ query, queries: n, keys: m }, t, h, s) => {
    if (!isInRange(h, t, n, s, m)) return false;
    const column = s - (m - columns);
    if (readMask !== undefined && column >= 0 && readMask(h, query + t, column) === hidden) {
      return false;
    }
    if (blockMask === undefined || readBlocks === undefined) return true;
    const row = Math.floor((query + t) / blockMask.queries);
    return readBlocks(h, row, Math.floor(s / blockMask.keys)) !== 0;
  };
}

/** q or k [rows, heads, dim] after rope, at these positions. */
function turned(
  x: Float64Array,
  [rows, heads, dim]: [number, number, number],
  positions: readonly number[],
  { mode = 'half', rotaryDim, theta = 10000, scaling, freqFactors }: AttentionRope,
): Float64Array {
  const turns = { mode, rotaryDim: rotaryDim || dim, theta, scaling };
  const factors = freqFactors === undefined ? {} : { freqFactors: freqFactors.toArray() };
  return Float64Array.from(
    ropeReference(x, [1, rows, heads, dim], positions, { ...turns, ...factors }),
  );
}

/** Lengths of pairs of channels that rope turns, and of the other channels. */
function lengths(
  x: ArrayLike<number>,
  dim: number,
  { mode = 'half', rotaryDim }: AttentionRope,
): number[] {
  const rotary = rotaryDim || dim;
  return Array.from(x, (value, i) => {
    const channel = i % dim;
    if (channel >= rotary) return 0;
    const half = rotary / 2;
    const other = mode === 'half' ? (channel < half ? half : -half) : channel % 2 === 0 ? 1 : -1;
    return Math.hypot(value, at(x, i + other));
  });
}

export function attentionReference(
  q: Tensor<FloatDType>,
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
  options: ReferenceOptions = {},
): AttentionReference {
  const [queries, heads, headDim] = q.shape as [number, number, number];
  const [, kvHeads, valueDim] = v.shape as [number, number, number];
  let [qs, ks, vs] = [q, k, v].map((x) => Float64Array.from(x.toArray())) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { rope } = options;
  // What rope's own roundings may move: by pairs of channels, each component by less than 4 steps of the pair's length.
  const [ql, kl] = rope === undefined ? [[], []] : [qs, ks].map((x) => lengths(x, headDim, rope));
  const scale = options.scale || 1 / Math.sqrt(headDim);
  const softCap = options.softCap ?? 0;
  const slopes = options.slopes?.toArray();
  const sinks = options.sinks?.toArray();
  const sees = sightOf(options);
  const added = options.mask?.dtype === 'f32' ? maskReader(options.mask) : undefined;
  const columns = options.mask?.shape[2] ?? 0;
  const sequences = sequencesOf(q, k, options);
  const longest = sequences.reduce((most, { keys }) => Math.max(most, keys), 0);
  if (rope !== undefined) {
    const keyPositions = rope.keyPositions?.toArray() ?? new Array<number>(ks.length).fill(0);
    const queryPositions = rope.queryPositions?.toArray() ?? new Array<number>(queries).fill(0);
    for (const { query, queries: n, key, keys: m } of sequences) {
      for (let s = 0; s < m && rope.keyPositions === undefined; s++) keyPositions[key + s] = s;
      for (let t = 0; t < n && rope.queryPositions === undefined; t++) {
        queryPositions[query + t] = t + m - n;
      }
    }
    qs = turned(qs, [queries, heads, headDim], queryPositions, rope);
    ks = turned(ks, [k.shape[0] as number, kvHeads, headDim], keyPositions, rope);
  }
  const output = new Float64Array(queries * heads * valueDim);
  const lse = new Float64Array(queries * heads);
  const wobble = new Float64Array(queries * heads);
  const probabilities = new Float64Array(heads * queries * longest);
  const scores = new Float64Array(longest);
  const moves = new Float64Array(longest);

  for (const sequence of sequences) {
    const { queries: n, keys: m } = sequence;
    for (let t = 0; t < n; t++) {
      const row = sequence.query + t;
      for (let h = 0; h < heads; h++) {
        const g = Math.floor(h / (heads / kvHeads));
        const seen: number[] = [];
        for (let s = 0; s < m; s++) {
          if (!sees(sequence, t, h, s)) continue;
          let dot = 0;
          let size = 0;
          let turn = 0;
          const queryAt = (row * heads + h) * headDim;
          const keyAt = ((sequence.key + s) * kvHeads + g) * headDim;
          for (let i = 0; i < headDim; i++) {
            const product = at(qs, queryAt + i) * at(ks, keyAt + i);
            dot += product;
            size += Math.abs(product);
            if (rope !== undefined)
              turn += at(ql as number[], queryAt + i) * at(kl as number[], keyAt + i);
          }
          let x = scale * dot;
          let move = Math.abs(scale) * (size * (headDim / 2 + 2) + 8 * turn);
          if (softCap !== 0) {
            x = softCap * Math.tanh(x / softCap);
            move += 2 * softCap;
          }
          const slope = slopes === undefined ? 0 : at(slopes, h) * Math.abs(t + m - n - s);
          x -= slope;
          const column = s - (m - columns);
          const term = added !== undefined && column >= 0 ? added(h, row, column) : 0;
          x += term;
          move += Math.abs(slope) + Math.abs(term) + Math.abs(x);
          // As one that is not seen, whatever its value.
          if (x === Number.NEGATIVE_INFINITY) continue;
          scores[s] = x;
          moves[s] = move;
          seen.push(s);
        }
        const sink = sinks === undefined ? Number.NEGATIVE_INFINITY : at(sinks, h);
        let largest = sink;
        for (const s of seen) largest = Math.max(largest, at(scores, s));
        const index = row * heads + h;
        if (largest === Number.NEGATIVE_INFINITY) {
          lse[index] = largest;
          continue;
        }
        let total = Math.exp(sink - largest);
        for (const s of seen) total += Math.exp(at(scores, s) - largest);
        lse[index] = largest + Math.log(total);
        for (const s of seen) {
          const weight = Math.exp(at(scores, s) - at(lse, index));
          probabilities[(h * queries + row) * longest + s] = weight;
          if (weight > 0) wobble[index] = at(wobble, index) + weight * at(moves, s);
          const valueAt = ((sequence.key + s) * kvHeads + g) * valueDim;
          for (let i = 0; i < valueDim; i++) {
            output[index * valueDim + i] =
              at(output, index * valueDim + i) + weight * at(vs, valueAt + i);
          }
        }
      }
    }
  }
  return { output, lse, probabilities, wobble };
}
