// What a cache checks of a policy, which may be a caller's own: before it takes it, and whenever it answers.
import { checkObject, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { functionOption, listOption, wholeOption } from './parts.js';
import type { CachePolicy, LayerView, ObservedSum } from './policy.js';

const op = 'PagedDecoderCache';
const sumNames: readonly unknown[] = [
  'sums',
  'squares',
  'entropy',
  'variance',
] satisfies ObservedSum[];

/** Throws `BL_INVALID_ARGUMENT` or `BL_OUT_OF_RANGE` for what is no policy. */
export function checkPolicy(policy: CachePolicy): void {
  checkObject(op, 'policy', policy);
  const { budget, block, latest, probe, sums, merge } = policy;
  wholeOption(op, 'policy.budget', budget, 1);
  if (block !== undefined) wholeOption(op, 'policy.block', block, 1);
  if (latest !== undefined) wholeOption(op, 'policy.latest', latest, 1);
  if (probe !== undefined) {
    wholeOption(op, 'policy.probe.length', listOption(op, 'policy.probe', probe).length, 1);
  }
  for (const name of listOption(op, 'policy.sums', sums ?? [])) {
    if (sumNames.includes(name)) continue;
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${op}: policy.sums has ${described(name)}, expected ${sumNames.join(', ')}`,
    );
  }
  for (const name of ['observes', 'score', 'budgets', 'select'] as const) {
    functionOption(op, `policy.${name}`, policy[name] ?? null);
  }
  functionOption(op, 'policy.merge', merge);
}

/** Queries of a step of `count` tokens that are observed. */
export function observedQueries(policy: CachePolicy, count: number): number {
  return Math.min(wholeOption(policy.name, 'observes()', policy.observes(count), 0), count);
}

/** `scores`, [numKvHeads][keys]; throws `BL_INVALID_SHAPE` otherwise. */
export function checkedScores(
  { name }: CachePolicy,
  scores: Float32Array[],
  numKvHeads: number,
  keys: number,
): Float32Array[] {
  const lengths = lengthsOf(name, 'score', scores);
  if (lengths.length === numKvHeads && lengths.every((length) => length === keys)) return scores;
  throw argumentError(
    'BL_INVALID_SHAPE',
    `${name}: score gives lists of [${lengths}] keys, expected ${numKvHeads} lists (kv heads) of ${keys}`,
  );
}

/** Keys of each layer, 1 to as many as it has; throws `BL_INVALID_SHAPE` or `BL_OUT_OF_RANGE` for what is no number of each. */
export function checkedBudgets(policy: CachePolicy, layers: readonly LayerView[]): number[] {
  const { name } = policy;
  const budgets = listOption(name, 'budgets()', policy.budgets(layers));
  if (budgets.length !== layers.length) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${name}: budgets gives ${budgets.length} numbers, expected ${layers.length} (layers)`,
    );
  }
  return layers.map(({ keys }, layer) => {
    const budget = budgets[layer] as number;
    if (typeof budget === 'number' && !Number.isNaN(budget)) {
      return Math.min(Math.max(Math.floor(budget), 1), keys);
    }
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${name}: budgets gives ${described(budget)} for layer ${layer}, expected a number`,
    );
  });
}

/** `kept`, of each kv head `count` keys in rising order; throws `BL_INVALID_SHAPE` or `BL_OUT_OF_RANGE` otherwise. */
export function checkedSelection(
  { name }: CachePolicy,
  kept: Int32Array[],
  { layer, numKvHeads, keys }: LayerView,
  count: number,
): Int32Array[] {
  const lengths = lengthsOf(name, 'select', kept);
  if (lengths.length !== numKvHeads || lengths.some((length) => length !== count)) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${name}: select gives lists of [${lengths}] keys in layer ${layer}, expected ${numKvHeads} lists (kv heads) of ${count}`,
    );
  }
  for (const [head, list] of kept.entries()) {
    let before = -1;
    for (const [i, key] of list.entries()) {
      if (!Number.isInteger(key) || key <= before || key >= keys) {
        throw argumentError(
          'BL_OUT_OF_RANGE',
          `${name}: select gives ${key} as key ${i} of head ${head} in layer ${layer}, expected ${before + 1} to ${keys - 1} (rising)`,
        );
      }
      before = key;
    }
  }
  return kept;
}

function lengthsOf(
  name: string,
  method: string,
  lists: readonly ArrayLike<number>[],
): (number | undefined)[] {
  return [...listOption(name, `${method}()`, lists)].map((list) => list?.length);
}
