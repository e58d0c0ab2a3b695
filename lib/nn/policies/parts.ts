// What policies are composed of: options, and defaults for the parts that a policy does not have.
import { checkOptions, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { CachePolicy } from './policy.js';
import { columnSums, maxPool } from './scores.js';

/** Options of every policy. */
export interface PolicyOptions {
  /** Keys of a layer that stay, on average over the layers. */
  budget: number;
}

/** Options of policies that look at the last queries. */
export interface WindowOptions extends PolicyOptions {
  /** The newest tokens, which stay; their queries are what is looked at. Default 32, budget / 2 at most, or as the policy says. */
  window?: number;
}

/** Options of {@link snapKV} and of what builds on it. */
export interface SnapKVOptions extends WindowOptions {
  /** Neighbours (odd) that a score is the largest of. Default 5. */
  pool?: number;
}

/** Where images stand in the text: [begin, end) of positions. */
export type PositionRange = readonly [begin: number, end: number];

type Optional = 'observes' | 'score' | 'budgets';
type Parts = Omit<CachePolicy, Optional> & Partial<Pick<CachePolicy, Optional>>;

/** A policy from parts; by default it observes nothing and gives every layer the same budget. */
export function policy(parts: Parts): CachePolicy {
  return {
    observes: () => 0,
    score: (before) => [...before],
    budgets: (layers) => layers.map(() => parts.budget),
    ...parts,
  };
}

/** Throws `BL_INVALID_ARGUMENT` unless `options` is an object with `budget` and `names` alone. */
export function checkPolicyOptions<T extends PolicyOptions>(
  policyName: string,
  options: T,
  ...names: (keyof T & string)[]
): void {
  checkOptions(policyName, options, new Set(['budget', ...names]));
}

/** What a policy remembers of each cache that it serves, made by `create` when a cache is first seen. */
export function perCache<S extends object>(create: () => S): (of: { cache: object }) => S {
  const states = new WeakMap<object, S>();
  return ({ cache }) => {
    const known = states.get(cache);
    if (known !== undefined) return known;
    const state = create();
    states.set(cache, state);
    return state;
  };
}

/** `value` if it is a whole number of at least `low`; throws `BL_OUT_OF_RANGE` otherwise. */
export function wholeOption(name: string, option: string, value: number, low: number): number {
  if (Number.isInteger(value) && value >= low) return value;
  throw argumentError(
    'BL_OUT_OF_RANGE',
    `${name}: ${option} is ${described(value)}, expected a whole number of at least ${low}`,
  );
}

/** `value` if it lies between `low` and `high`; throws `BL_OUT_OF_RANGE` otherwise. */
export function realOption(
  name: string,
  option: string,
  value: number,
  low: number,
  high = Number.MAX_VALUE,
): number {
  if (typeof value === 'number' && value >= low && value <= high) return value;
  const expected = high === Number.MAX_VALUE ? `at least ${low}` : `${low} to ${high}`;
  throw argumentError(
    'BL_OUT_OF_RANGE',
    `${name}: ${option} is ${described(value)}, expected ${expected}`,
  );
}

/** One of `choices`; throws `BL_INVALID_ARGUMENT` otherwise. */
export function choiceOption<T extends string>(
  name: string,
  option: string,
  value: T,
  choices: readonly T[],
): T {
  if (choices.includes(value)) return value;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${name}: ${option} is ${described(value)}, expected one of ${choices.join(', ')}`,
  );
}

/** `value` if it is an array; throws `BL_INVALID_ARGUMENT` otherwise. */
export function listOption<T extends readonly unknown[]>(
  name: string,
  option: string,
  value: T,
): T {
  if (Array.isArray(value) || (ArrayBuffer.isView(value) && 'length' in value)) return value;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${name}: ${option} is ${described(value)}, expected an array`,
  );
}

/** Throws `BL_INVALID_ARGUMENT` unless `value` is a function or left out. */
export function functionOption(name: string, option: string, value: unknown): void {
  if (value === undefined || typeof value === 'function') return;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${name}: ${option} is ${described(value)}, expected a function`,
  );
}

/** The window; by default what `standard` makes of the budget. */
export function windowOf(
  name: string,
  { budget, window }: WindowOptions,
  standard = (most: number): number => Math.min(32, Math.floor(most / 2)),
): number {
  wholeOption(name, 'budget', budget, 2);
  if (window === undefined) return standard(budget);
  wholeOption(name, 'window', window, 1);
  if (window < budget) return window;
  throw argumentError(
    'BL_OUT_OF_RANGE',
    `${name}: window is ${window}, expected less than ${budget} (= budget)`,
  );
}

/** The same with a default of 8, budget / 4 at most: for policies whose newest tokens do not decide. */
export function smallWindowOf(name: string, options: WindowOptions): number {
  return windowOf(name, options, (budget) => Math.max(1, Math.min(8, Math.floor(budget / 4))));
}

/** An odd number of neighbours. */
export function poolOf(name: string, value: number | undefined): number {
  const pool = wholeOption(name, 'pool', value ?? 5, 1);
  if (pool % 2 === 1) return pool;
  throw argumentError('BL_OUT_OF_RANGE', `${name}: pool is ${pool}, expected an odd number`);
}

/** Ranges in rising order, none empty, none over another. */
export function rangesOf(
  name: string,
  option: string,
  ranges: readonly PositionRange[] = [],
): readonly PositionRange[] {
  let last = 0;
  for (const [i, range] of listOption(name, option, ranges).entries()) {
    const [begin, end] = listOption(name, `${option}[${i}]`, range);
    if (Number.isInteger(begin) && Number.isInteger(end) && begin >= last && end > begin) {
      last = end;
      continue;
    }
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${name}: ${option}[${i}] is [${range}], expected whole numbers begin < end, begin at least ${last}`,
    );
  }
  return ranges;
}

/** One range within [low, high). */
export function checkedRange(
  name: string,
  option: string,
  range: PositionRange,
  low: number,
  high: number,
): PositionRange {
  const [begin, end] = listOption(name, option, range);
  if (
    Number.isInteger(begin) &&
    Number.isInteger(end) &&
    begin >= low &&
    end > begin &&
    end <= high
  ) {
    return range;
  }
  throw argumentError(
    'BL_OUT_OF_RANGE',
    `${name}: ${option} is [${range}], expected whole numbers begin < end from ${low} to ${high}`,
  );
}

/** Numbers begin to end - 1. */
export const range = (begin: number, end: number): number[] =>
  Array.from({ length: Math.max(end - begin, 0) }, (_, i) => begin + i);

/** Scores of each head with what a step has given them. */
export const added = (
  before: readonly Float32Array[],
  now: readonly Float32Array[],
): Float32Array[] =>
  before.map((scores, head) => {
    const more = now[head] as Float32Array;
    return scores.map((score, s) => score + (more[s] as number));
  });

/** Column sums of the observed queries added to what there is: keys that were looked at all along. */
export const accumulate = (): CachePolicy['score'] => (before, observation) =>
  observation === undefined ? [...before] : added(before, columnSums(observation, before.length));

/** Column sums of the observed queries alone. */
export const latest: CachePolicy['score'] = (before, observation) =>
  observation === undefined ? [...before] : columnSums(observation, before.length);

/** {@link latest}, the largest of `pool` neighbours. */
export const latestPooled =
  (pool: number): CachePolicy['score'] =>
  (before, observation, step) =>
    observation === undefined
      ? [...before]
      : latest(before, observation, step).map((scores) => maxPool(scores, pool));
