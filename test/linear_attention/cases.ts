// Inputs of the linear attention tests, their reference, and the bound that results must keep.
import { expect } from 'vitest';
import {
  type FloatDType,
  type Isa,
  type LinearAttentionOptions,
  linearAttention,
  Tensor,
} from '../../lib/index.js';
import {
  type LinearAttentionExpected,
  type LinearAttentionShape,
  linearAttentionReference,
} from '../reference/linear_attention.js';
import { epsilon, strided } from '../reference/op_checks.js';
import { gaussian, randomSource } from '../reference/random.js';

export type Kind = 'none' | 'head' | 'token' | 'channel';
export const kinds: Kind[] = ['none', 'head', 'token', 'channel'];
export type Rule = 'decay' | 'delta';
export const rules: Rule[] = ['decay', 'delta'];

export interface CaseOptions {
  kind?: Kind;
  rule?: Rule;
  /** Log decays are uniform in [-strength, 0]; default 0.2. */
  strength?: number;
  /** Of a log decay to be -Infinity. */
  resets?: number;
  dtype?: FloatDType;
  seed?: number;
  gaps?: readonly number[];
  /** Begins with a state of Gaussian numbers. */
  withState?: boolean;
}

export interface Inputs {
  shape: LinearAttentionShape;
  rule: Rule;
  q: Tensor<FloatDType>;
  k: Tensor<FloatDType>;
  v: Tensor<FloatDType>;
  state: Tensor<'f32'>;
  decay: Tensor<'f32'> | undefined;
  beta: Tensor<'f32'> | undefined;
}

export function inputs(shape: LinearAttentionShape, options: CaseOptions = {}): Inputs {
  const { tokens, heads, kvHeads, keyDim, valueDim } = shape;
  const { kind = 'none', rule = 'decay', strength = 0.2, resets = 0, dtype = 'f32' } = options;
  const { seed = 1, gaps = [], withState = false } = options;
  const random = randomSource(seed + 77);
  const make = (sizes: number[], values: Float32Array) => strided(dtype, values, sizes, gaps);
  const count = (sizes: number[]) => sizes.reduce((a, b) => a * b);
  const keys = gaussian(tokens * kvHeads * keyDim, seed + 1);
  if (rule === 'delta') unitRows(keys, keyDim);
  const sizes = {
    none: [],
    head: [kvHeads],
    token: [tokens, kvHeads],
    channel: [tokens, kvHeads, keyDim],
  };
  const logs = () => (random() < resets ? Number.NEGATIVE_INFINITY : -strength * random());
  const stateSizes = [1, kvHeads, keyDim, valueDim];
  const state = withState
    ? gaussian(count(stateSizes), seed + 3)
    : new Float32Array(count(stateSizes));
  return {
    shape,
    rule,
    q: make([tokens, heads, keyDim], gaussian(tokens * heads * keyDim, seed)),
    k: make([tokens, kvHeads, keyDim], keys),
    v: make([tokens, kvHeads, valueDim], gaussian(tokens * kvHeads * valueDim, seed + 2)),
    state: new Tensor('f32', state, stateSizes),
    decay:
      kind === 'none'
        ? undefined
        : strided(
            'f32',
            Float32Array.from({ length: count(sizes[kind]) }, logs),
            sizes[kind],
            gaps,
          ),
    beta:
      rule === 'delta'
        ? strided(
            'f32',
            Float32Array.from({ length: tokens * kvHeads }, random),
            [tokens, kvHeads],
            gaps,
          )
        : undefined,
  };
}

function unitRows(values: Float32Array, length: number): void {
  for (let row = 0; row < values.length; row += length) {
    const part = values.subarray(row, row + length);
    const norm = Math.hypot(...part);
    for (let i = 0; i < length; i++) part[i] = (part[i] as number) / norm;
  }
}

export function expectedOf(input: Inputs, scale?: number): LinearAttentionExpected {
  const { shape, decay, beta } = input;
  const logs = decay?.toArray();
  const betas = beta?.toArray();
  const rank = decay?.rank ?? 0;
  const log = (t: number, g: number, i: number) => {
    if (rank === 1) return logs?.[g] as number;
    const place = t * shape.kvHeads + g;
    return logs?.[rank === 2 ? place : place * shape.keyDim + i] as number;
  };
  return linearAttentionReference(shape, {
    q: input.q.toArray(),
    k: input.k.toArray(),
    v: input.v.toArray(),
    state: input.state.data,
    log: decay === undefined ? undefined : log,
    beta: beta === undefined ? undefined : (t, g) => betas?.[t * shape.kvHeads + g] as number,
    rule: input.rule,
    scale,
  });
}

/** Runs it on a copy of the state. */
export function compute<D extends FloatDType = 'f32'>(
  input: Inputs,
  options: LinearAttentionOptions<D> = {},
) {
  const { q, k, v, decay, beta, rule } = input;
  const state = new Tensor('f32', input.state.data.slice(), input.state.shape);
  return linearAttention(q, k, v, {
    state,
    ...(decay === undefined ? {} : { decay }),
    ...(beta === undefined ? {} : { beta }),
    rule,
    ...options,
  });
}

/**
 * Error allowed in units of the reference's sizes. scalar: double, one rounding at the end. SIMD: f32 sums over channels
 * and over tokens; their roundings have either sign, hence a share of their number (a fifth of that is found).
 */
export const roundings = (isa: Isa, { tokens, keyDim }: LinearAttentionShape) =>
  isa === 'scalar' ? 1 : 8 + (keyDim + tokens) / 8;

/** Largest error in units of what is allowed; at most 1 is right. */
export function worstOf(
  actual: readonly number[],
  expected: readonly number[],
  sizes: readonly number[],
  count: number,
  dtype: FloatDType = 'f32',
): number {
  expect(actual.length).toBe(expected.length);
  let worst = 0;
  actual.forEach((value, i) => {
    const want = expected[i] as number;
    if (Object.is(value, want) || value === want) return;
    const allowed =
      ((count * epsilon.f32) / 2) * (sizes[i] as number) +
      (Math.abs(want) * epsilon[dtype]) / 2 +
      (dtype === 'f16' ? 2 ** -24 : 2 ** -133);
    const error = Math.abs(value - want) / allowed;
    worst = Number.isNaN(error) ? Number.POSITIVE_INFINITY : Math.max(worst, error);
  });
  return worst;
}
