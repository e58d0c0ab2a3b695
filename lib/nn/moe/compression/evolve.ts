import { checkObject, described } from '../../../arguments.js';
import { argumentError } from '../../../errors.js';
import { normalAt, uniformAt } from '../../../ops/moe/noise.js';
import type { ExpertPlan } from './expert_plan.js';

/** One candidate: a plan for each layer, and what it is worth. */
export interface EvolveCandidate {
  plans: ExpertPlan[];
  loss: number;
}

/** State of a search, plain JSON: {@link evolveExperts} goes on from it. */
export interface EvolveState {
  version: 1;
  /** Random numbers drawn so far. */
  drawn: number;
  /** Candidates evaluated after the first population. */
  steps: number;
  /** Best first. */
  population: EvolveCandidate[];
}

/** Options of {@link evolveExperts}. */
export interface EvolveOptions {
  /** Experts of each layer. */
  numExperts: readonly number[];
  /** Experts that each layer keeps. */
  keep: number;
  /**
   * Experts of a token, all layers together: at least 1 and at most `keep` for each layer, shared out by the search. It prunes
   * active experts where it is less than `layers * topK` of the model. Default: not searched, plans have no `topK`.
   */
  active?: number;
  /** Loss of a candidate on calibration data: lower is better. Awaited; gradients are not needed. */
  evaluate: (plans: readonly ExpertPlan[]) => number | Promise<number>;
  /** Steps of the first phase: which experts to keep. */
  pruneSteps: number;
  /** Steps of the second phase: how to merge all others into them. */
  mergeSteps: number;
  /** Candidates that live. Default 16. */
  populationSize?: number;
  /** Standard deviation of a change of a factor in the second phase. Default 0.1. */
  scale?: number;
  seed?: number;
  /** From an earlier search with the same options. */
  state?: EvolveState;
  /** Called after each step with a copy to keep. */
  onProgress?: (state: EvolveState) => void;
  signal?: AbortSignal;
}

/**
 * EEP (Liu et al. 2024, "Efficient Expert Pruning"): an evolutionary search, by forward passes alone, over a router mapping
 * and an expert merging matrix of each layer. In the first phase rows are single experts: children take rows of two of the
 * better half and exchange a kept expert for another. In the second, children of the best get normal changes of their
 * factors, so that experts that are gone live on in others. A child takes the worst one's place if it is better.
 *
 * With `active` the search prunes active experts too, in both phases: every candidate has as many for all layers together, and
 * children move one of them from a layer to another. (The paper runs with fewer active experts for all layers alike;
 * sharing them out by layers is this library's.) Plans say `topK`, which `applyExpertPlan`, `withExperts` and `compressModel` pass on.
 *
 * Numbers are drawn from the seed by their place, so that a search that stops and goes on from its state ends where one
 * without a stop does.
 *
 * @returns the state at the end; `population[0]` is the best
 * @throws `BL_OUT_OF_RANGE`; what `evaluate` throws
 *
 * @example
 * ```ts
 * const layers = expertLayers(decoder) as ExpertLayer[]; // 32 layers of 8 experts, 2 of them active
 * const applied = (plans: readonly ExpertPlan[]) =>
 *   layers.map((layer, i) => applyExpertPlan(layer, plans[i] as ExpertPlan));
 * const state = await evolveExperts({
 *   numExperts: layers.map(({ experts }) => experts.length),
 *   keep: 4,
 *   active: 48, // 1.5 of a layer
 *   pruneSteps: 200,
 *   mergeSteps: 200,
 *   evaluate: async (plans) => (await perplexity(withExperts(decoder, applied(plans)), text)).loss,
 *   onProgress: (now) => writeFileSync('search.json', JSON.stringify(now)),
 * });
 * const best = (state.population[0] as EvolveCandidate).plans;
 * await compressModel('model.gguf', 'small.gguf', (layer, i) => applyExpertPlan(layer, best[i] as ExpertPlan));
 * ```
 */
export async function evolveExperts(options: EvolveOptions): Promise<EvolveState> {
  checkObject('evolveExperts', 'options', options);
  checkObject('evolveExperts', 'numExperts', options.numExperts);
  const { numExperts, keep, evaluate, pruneSteps, mergeSteps, populationSize = 16 } = options;
  const { scale = 0.1, seed = 0, active } = options;
  for (const [name, value, least] of [
    ['layers of numExperts', numExperts.length, 1],
    ['pruneSteps', pruneSteps, 0],
    ['mergeSteps', mergeSteps, 0],
  ] as const) {
    if (Number.isInteger(value) && value >= least) continue;
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `evolveExperts: ${name} is ${described(value)}, expected a whole number of at least ${least}`,
    );
  }
  if (!Number.isInteger(keep) || keep < 1 || numExperts.some((experts) => keep > experts)) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `evolveExperts: keep is ${keep}, expected a whole number from 1 to ${Math.min(...numExperts)}`,
    );
  }
  const layers = numExperts.length;
  if (
    active !== undefined &&
    !(Number.isInteger(active) && active >= layers && active <= layers * keep)
  ) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `evolveExperts: active is ${active}, expected a whole number from ${layers} to ${layers * keep} (1 to keep for each of ${layers} layers)`,
    );
  }
  if (!Number.isInteger(populationSize) || populationSize < 2) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `evolveExperts: populationSize is ${populationSize}, expected a whole number of at least 2`,
    );
  }
  if (options.state !== undefined) checkState(options.state, options);
  const state: EvolveState = structuredClone(
    options.state ?? { version: 1, drawn: 0, steps: 0, population: [] },
  );
  const random: Random = {
    below: (n) => Math.floor(uniformAt(seed, state.drawn++) * n),
    // Normal numbers take two places; they have a seed of their own.
    normal: () => normalAt((seed ^ 0x5bd1e995) >>> 0, state.drawn++),
  };
  const place = async (plans: ExpertPlan[]) => {
    options.signal?.throwIfAborted();
    const loss = await evaluate(plans);
    if (typeof loss !== 'number') {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `evolveExperts: evaluate gave ${described(loss)}, expected a number`,
      );
    }
    // NaN is worse than all. JSON has no infinities.
    const most = Number.MAX_VALUE;
    const candidate = {
      plans,
      loss: Number.isNaN(loss) ? most : Math.max(-most, Math.min(loss, most)),
    };
    const at = state.population.findIndex((other) => candidate.loss < other.loss);
    state.population.splice(at < 0 ? state.population.length : at, 0, candidate);
    state.population.length = Math.min(state.population.length, populationSize);
  };
  while (state.steps === 0 && state.population.length < populationSize) {
    const plans = numExperts.map((experts) => randomPlan(experts, keep, random));
    await place(active === undefined ? plans : shareOut(plans, active, keep, random));
    options.onProgress?.(structuredClone(state));
  }
  while (state.steps < pruneSteps + mergeSteps) {
    const child =
      state.steps < pruneSteps ? exchange(state.population, random) : vary(state, scale, random);
    await place(active === undefined ? child : moveActive(child, keep, random));
    state.steps++;
    options.onProgress?.(structuredClone(state));
  }
  return state;
}

/** @throws `BL_INVALID_ARGUMENT` for what is no state of a search over such layers */
function checkState(state: EvolveState, { numExperts, keep, active }: EvolveOptions): void {
  const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  const isMatrix = (rows: unknown, experts: number) =>
    Array.isArray(rows) &&
    rows.length === keep &&
    rows.every((row) => Array.isArray(row) && row.length === experts && row.every(Number.isFinite));
  const fits =
    state?.version === 1 &&
    isCount(state.drawn) &&
    isCount(state.steps) &&
    Array.isArray(state.population) &&
    (state.steps === 0 || state.population.length >= 2) &&
    state.population.every(
      (one) =>
        Number.isFinite(one?.loss) &&
        one.plans?.length === numExperts.length &&
        numExperts.every((experts, i) => {
          const { route, merge, topK } = one.plans[i] ?? {};
          const counts = active === undefined ? topK === undefined : isCount(topK);
          return counts && isMatrix(route, experts) && isMatrix(merge, experts);
        }),
    );
  if (fits) return;
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `evolveExperts: state is none of a search with these options, expected plans of ${numExperts.length} layers, ${keep} of [${numExperts}] experts${active === undefined ? '' : ', with topK'}`,
  );
}

interface Random {
  below: (n: number) => number;
  normal: () => number;
}

const single = (experts: number, chosen: number) =>
  Array.from({ length: experts }, (_, e) => (e === chosen ? 1 : 0));

function planOf(experts: number, kept: readonly number[]): ExpertPlan {
  const rows = () => kept.map((e) => single(experts, e));
  return { route: rows(), merge: rows() };
}

function randomPlan(experts: number, keep: number, random: Random): ExpertPlan {
  const left = Array.from({ length: experts }, (_, e) => e);
  const kept = Array.from(
    { length: keep },
    () => left.splice(random.below(left.length), 1)[0] as number,
  );
  return planOf(
    experts,
    kept.sort((a, b) => a - b),
  );
}

/** One active expert for each layer, the others at random. */
function shareOut(
  plans: readonly ExpertPlan[],
  active: number,
  keep: number,
  random: Random,
): ExpertPlan[] {
  const counts = plans.map(() => 1);
  for (let left = active - plans.length; left > 0; left--) {
    const open = [...counts.keys()].filter((layer) => (counts[layer] as number) < keep);
    const layer = open[random.below(open.length)] as number;
    counts[layer] = (counts[layer] as number) + 1;
  }
  return plans.map((plan, layer) => ({ ...plan, topK: counts[layer] as number }));
}

/** In every second child one active expert goes to another layer, so that their number stays. */
function moveActive(plans: ExpertPlan[], keep: number, random: Random): ExpertPlan[] {
  if (random.below(2) === 0) return plans;
  const countOf = (layer: number) => plans[layer]?.topK as number;
  const layers = [...plans.keys()];
  const givers = layers.filter((layer) => countOf(layer) > 1);
  if (givers.length === 0) return plans;
  const from = givers[random.below(givers.length)] as number;
  const takers = layers.filter((layer) => layer !== from && countOf(layer) < keep);
  if (takers.length === 0) return plans;
  const to = takers[random.below(takers.length)] as number;
  return plans.map((plan, layer) => {
    if (layer !== from && layer !== to) return plan;
    return { ...plan, topK: countOf(layer) + (layer === to ? 1 : -1) };
  });
}

/** A child that keeps experts of two parents, with one exchanged in one of its layers. */
function exchange(population: readonly EvolveCandidate[], random: Random): ExpertPlan[] {
  const better = Math.max(2, Math.ceil(population.length / 2));
  const parents = [0, 1].map(() => population[random.below(Math.min(better, population.length))]);
  const [first, second] = parents as [EvolveCandidate, EvolveCandidate];
  const changed = random.below(first.plans.length);
  return first.plans.map((plan, layer) => {
    const experts = plan.route[0]?.length ?? 0;
    const keptOf = ({ route }: ExpertPlan) => route.map((row) => row.indexOf(1));
    const own = keptOf(plan);
    const other = keptOf(second.plans[layer] as ExpertPlan);
    const kept = own.map((e, i) => {
      const replacement = other[i] as number;
      return random.below(2) === 1 && !own.includes(replacement) ? replacement : e;
    });
    if (layer === changed && kept.length < experts) {
      const gone = Array.from({ length: experts }, (_, e) => e).filter((e) => !kept.includes(e));
      kept[random.below(kept.length)] = gone[random.below(gone.length)] as number;
    }
    return {
      ...plan,
      ...planOf(
        experts,
        kept.sort((a, b) => a - b),
      ),
    };
  });
}

/** A child of one of the better half, with normal changes of one row of each matrix of one layer. */
function vary({ population }: EvolveState, scale: number, random: Random): ExpertPlan[] {
  const parent = population[random.below(Math.ceil(population.length / 2))] as EvolveCandidate;
  const plans = structuredClone(parent.plans);
  const plan = plans[random.below(plans.length)] as ExpertPlan;
  for (const matrix of [plan.route, plan.merge]) {
    const row = matrix[random.below(matrix.length)] as number[];
    row.forEach((factor, e) => {
      row[e] = factor + scale * random.normal();
    });
  }
  return plans;
}
