/** Random calls of attention: any options beside each other, shapes around the boundaries of tiles and chunks of keys. */
import fc from 'fast-check';
import { expect } from 'vitest';
import {
  type AttentionOptions,
  type AttentionRope,
  attention,
  type FloatDType,
  type Isa,
  type RaggedOptions,
  type RopeMode,
  type RopeScaling,
  Tensor,
} from '../../lib/index.js';
import { attentionReference, type ReferenceOptions } from './attention.js';
import { epsilon, strided, worst } from './op_checks.js';
import { gaussian, randomSource } from './random.js';

export interface Inputs {
  q: Tensor<FloatDType>;
  k: Tensor<FloatDType>;
  v: Tensor<FloatDType>;
}

/** What a case is made of, as fast-check prints it. */
export interface Plan {
  dtype: FloatDType;
  /** Queries and keys of each sequence; several: ragged. */
  lengths: [number, number][];
  kvHeads: number;
  group: number;
  headDim: number;
  valueDim: number;
  causal: boolean;
  window: number;
  windows: boolean;
  sinkTokens: number;
  sinkCounts: boolean;
  prefix: number;
  causalBlock: number;
  softCap: number;
  slopes: boolean;
  sinks: boolean;
  mask: 'none' | 'u8' | 'f32';
  maskHeads: boolean;
  maskColumns: number;
  blockMask: [number, number] | undefined;
  scale: number | undefined;
  /** rotaryDim: all, or all but two channels. */
  rope?: {
    mode: RopeMode;
    part: boolean;
    theta: number;
    scaling: RopeScaling | undefined;
    freqFactors: boolean;
    queryPositions: boolean;
    keyPositions: 'none' | 'stretches' | 'any';
  };
  gaps: number[];
  seed: number;
}

/** Around units of 16 keys, tiles of 64 and chunks of 512. */
const keyCounts = [0, 1, 2, 15, 17, 33, 63, 64, 65, 130, 511, 512, 513, 640, 1024, 1025, 1500];

export const plans: fc.Arbitrary<Plan> = fc.record({
  dtype: fc.constantFrom<FloatDType>('f32', 'f16', 'bf16'),
  lengths: fc.oneof(
    { weight: 3, arbitrary: fc.array(sequence([0, 1, 2, 5, 9, 33], keyCounts), one(1)) },
    { weight: 1, arbitrary: fc.array(sequence([0, 1, 3, 20], [0, 1, 16, 65, 520]), one(4)) },
  ),
  kvHeads: fc.integer({ min: 1, max: 3 }),
  group: fc.constantFrom(1, 2, 3, 4, 9),
  headDim: fc.constantFrom(1, 3, 16, 20, 64),
  valueDim: fc.constantFrom(1, 5, 16, 33, 64),
  causal: fc.boolean(),
  window: fc.constantFrom(0, 0, 1, 5, 64, 700, 2 ** 31 - 1),
  windows: rarely(),
  sinkTokens: fc.constantFrom(0, 0, 1, 4, 70),
  sinkCounts: rarely(),
  prefix: fc.constantFrom(0, 0, 1, 40, 2000),
  causalBlock: fc.constantFrom(0, 1, 4, 32, 600),
  softCap: fc.constantFrom(0, 0, 2, 30),
  slopes: rarely(),
  sinks: rarely(),
  mask: fc.constantFrom('none', 'none', 'u8', 'f32'),
  maskHeads: fc.boolean(),
  maskColumns: fc.constantFrom(1, 7, 64, 600, 2000),
  blockMask: fc.option(
    fc.constantFrom<[number, number]>([1, 1], [4, 16], [16, 64], [7, 100], [1000, 2000]),
    { nil: undefined, freq: 3 },
  ),
  scale: fc.constantFrom(undefined, undefined, 0.3, -0.1),
  gaps: fc.constantFrom<number[]>([], [2, 3, 0], [5, 0, 1]),
  seed: fc.integer(),
});

/** Plans with rotary position embedding. */
export const ropePlans: fc.Arbitrary<Plan> = fc
  .tuple(
    plans,
    fc.constantFrom(2, 6, 16, 20, 64, 128),
    fc.record({
      mode: fc.constantFrom<RopeMode>('half', 'interleaved'),
      part: fc.boolean(),
      theta: fc.constantFrom(10000, 500000, 7.5),
      scaling: fc.constantFrom<RopeScaling | undefined>(
        undefined,
        { type: 'linear', factor: 2.5 },
        { type: 'llama3', factor: 8, originalContext: 8192 },
        { type: 'yarn', factor: 4, originalContext: 64 },
      ),
      freqFactors: rarely(),
      queryPositions: rarely(),
      keyPositions: fc.constantFrom('none', 'none', 'stretches', 'any'),
    }),
  )
  .map(([plan, headDim, rope]) => ({ ...plan, headDim, rope }));

function sequence(queries: number[], keys: number[]): fc.Arbitrary<[number, number]> {
  return fc.tuple(fc.constantFrom(...queries), fc.constantFrom(...keys));
}
function one(most: number) {
  return { minLength: 1, maxLength: most };
}
function rarely(): fc.Arbitrary<boolean> {
  return fc.constantFrom(false, false, false, true);
}

/** Multiply-adds of a call, so that tests can leave large ones out. */
export const workOf = (plan: Plan): number =>
  plan.lengths.reduce((sum, [n, m]) => sum + n * m, 0) *
  plan.kvHeads *
  plan.group *
  (plan.headDim + plan.valueDim);

export const total = (counts: readonly number[]): number => counts.reduce((a, b) => a + b, 0);
export const product = (counts: readonly number[]): number => counts.reduce((a, b) => a * b, 1);

/** Offsets of parts that lie side by side. */
export function offsets(counts: readonly number[]): Tensor<'i32'> {
  const sums = [0];
  for (const count of counts) sums.push((sums.at(-1) as number) + count);
  return new Tensor('i32', sums, [sums.length]);
}

export function inputsOf(
  plan: Pick<
    Plan,
    'dtype' | 'lengths' | 'kvHeads' | 'group' | 'headDim' | 'valueDim' | 'seed' | 'gaps'
  >,
): Inputs {
  const { dtype, kvHeads, group, headDim, valueDim, seed, gaps } = plan;
  const queries = total(plan.lengths.map(([n]) => n));
  const keys = total(plan.lengths.map(([, m]) => m));
  const make = (shape: number[], salt: number) =>
    strided(dtype, gaussian(product(shape), seed + salt), shape, gaps);
  return {
    q: make([queries, kvHeads * group, headDim], 0),
    k: make([keys, kvHeads, headDim], 1),
    v: make([keys, kvHeads, valueDim], 2),
  };
}

export type Options = ReferenceOptions & AttentionOptions<FloatDType> & RaggedOptions;

export function optionsOf(plan: Plan): Options {
  const { lengths, causal, window, sinkTokens, softCap, scale } = plan;
  const heads = plan.kvHeads * plan.group;
  const queries = total(lengths.map(([n]) => n));
  const random = randomSource(plan.seed ^ 0x5bd1e995);
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)] as T;
  const each = <T>(count: number, make: () => T): T[] => Array.from({ length: count }, make);
  const options: Options = { causal, window, sinkTokens, softCap };
  if (scale !== undefined) options.scale = scale;
  if (causal) Object.assign(options, { prefix: plan.prefix, causalBlock: plan.causalBlock });
  const vector = <D extends 'f32' | 'i32'>(dtype: D, make: () => number): Tensor<D> =>
    new Tensor(dtype, each(heads, make), [heads]) as Tensor as Tensor<D>;
  if (plan.windows) options.windows = vector('i32', () => pick([0, 1, 30, 65, 600]));
  if (plan.sinkCounts) options.sinkCounts = vector('i32', () => pick([0, 1, 20, 64, 2000]));
  if (plan.slopes) options.slopes = vector('f32', () => pick([0, 0.5, 2 ** -8, -0.01]));
  if (plan.sinks) options.sinks = vector('f32', () => 4 * random() - 2);
  if (lengths.length > 1) {
    options.cuQueries = offsets(lengths.map(([n]) => n));
    options.cuKeys = offsets(lengths.map(([, m]) => m));
  }
  const columns = Math.min(plan.maskColumns, ...lengths.map(([, m]) => m));
  const shape = [plan.maskHeads ? heads : 1, queries, columns];
  if (plan.mask === 'u8') {
    const seen = each(product(shape), () => (random() < 0.6 ? 1 + Math.floor(random() * 255) : 0));
    options.mask = new Tensor('u8', seen, shape);
  } else if (plan.mask === 'f32') {
    const added = each(product(shape), () =>
      random() < 0.4 ? Number.NEGATIVE_INFINITY : 6 * random() - 3,
    );
    options.mask = strided('f32', added, shape, plan.gaps);
  }
  if (plan.blockMask !== undefined && lengths.length === 1) {
    const [rows, columnsOfBlock] = plan.blockMask;
    const [n, m] = lengths[0] as [number, number];
    const blocks = [plan.maskHeads ? heads : 1, Math.ceil(n / rows), Math.ceil(m / columnsOfBlock)];
    const seen = each(product(blocks), () => (random() < 0.7 ? 1 : 0));
    options.blockMask = {
      mask: new Tensor('u8', seen, blocks),
      queries: rows,
      keys: columnsOfBlock,
    };
  }
  if (plan.rope !== undefined) options.rope = ropeOf(plan, plan.rope, queries, random);
  return options;
}

function ropeOf(
  { lengths, headDim }: Plan,
  plan: NonNullable<Plan['rope']>,
  queries: number,
  random: () => number,
): AttentionRope {
  const { mode, part, theta, scaling } = plan;
  const rotaryDim = part && headDim > 2 ? headDim - 2 : headDim;
  const rope: AttentionRope = { mode, theta, ...(part ? { rotaryDim } : {}) };
  if (scaling !== undefined) rope.scaling = scaling;
  const position = () => Math.floor(random() * 131072);
  const i32 = (values: number[]) => strided('i32', values, [values.length], [1]);
  if (plan.freqFactors) {
    const factors = Array.from({ length: rotaryDim / 2 }, () => 1 + random());
    rope.freqFactors = new Tensor('f32', factors, [rotaryDim / 2]);
  }
  if (plan.queryPositions) rope.queryPositions = i32(Array.from({ length: queries }, position));
  if (plan.keyPositions !== 'none') {
    // Stretches of 40 keys that follow one another, or any.
    let last = 0;
    const next = (s: number) => {
      last = plan.keyPositions === 'any' || s % 40 === 0 ? position() : last + 1;
      return last;
    };
    rope.keyPositions = i32(
      Array.from({ length: total(lengths.map(([, m]) => m)) }, (_, s) => next(s)),
    );
  }
  return rope;
}

export interface Results {
  output: Tensor<FloatDType>;
  lse: Tensor<'f32'>;
  probabilities: Tensor<'f32'>;
}

/** attention() with everything it can write, into tensors with gaps. */
export function attend(
  { q, k, v }: Inputs,
  options: AttentionOptions<FloatDType> & RaggedOptions,
  dtype: FloatDType = 'f32',
): Results {
  const [queries, heads] = q.shape as [number, number];
  const counts = options.cuKeys?.toArray() ?? [0, k.shape[0] as number];
  const keys = Math.max(0, ...counts.slice(1).map((end, i) => end - (counts[i] as number)));
  const empty = <D extends FloatDType>(type: D, shape: number[], gaps: number[]): Tensor<D> =>
    strided(type, new Float32Array(product(shape)), shape, gaps);
  const output = empty(dtype, [queries, heads, v.shape[2] as number], [1, 2, 1]);
  const lse = empty('f32', [queries, heads], [1, 2]);
  const probabilities = empty('f32', [heads, queries, keys], [3, 1, 0]);
  attention(q, k, v, { ...options, out: output, lse, probabilities });
  return { output, lse, probabilities };
}

/**
 * Expects results within a bound of the formula. In units of f32's rounding step 2^-23: a score is off by its wobble, which
 * moves a result by up to twice that times the largest |v|, lse by once, a probability by twice relatively. Weights,
 * sums and their rescaling are off by at most 16 more in SIMD kernels; the scalar kernel works in double.
 */
export function expectFormula(
  isa: Isa,
  inputs: Inputs,
  options: Options,
  { output, lse, probabilities }: Results,
): void {
  const expected = attentionReference(inputs.q, inputs.k, inputs.v, options);
  const largest = inputs.v.toArray().reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const base = isa === 'scalar' ? 1 : 16;
  const wobble = expected.wobble.reduce((most, value) => Math.max(most, value), 0);
  const steps = (base + 2 * wobble) * epsilon.f32;
  const rounding = largest * (epsilon[output.dtype] / 2);
  expect(
    worst(output.toArray(), expected.output, largest * steps + rounding + 1e-37, 0),
    'output',
  ).toBeLessThanOrEqual(1);
  expect(
    worst(lse.toArray(), expected.lse, (base + wobble) * epsilon.f32, epsilon.f32),
    'lse',
  ).toBeLessThanOrEqual(1);
  // A small weight's own score may be larger than those that wobble was averaged over: an absolute part for it.
  expect(
    worst(probabilities.toArray(), expected.probabilities, steps + 1e-37, steps),
    'probabilities',
  ).toBeLessThanOrEqual(1);
}
