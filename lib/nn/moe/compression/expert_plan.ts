// What a search over experts finds, and what it makes of a layer.
import { checkObject } from '../../../arguments.js';
import { argumentError } from '../../../errors.js';
import { Tensor } from '../../../tensor.js';
import { checkDense, combine, type DenseExpert, type ExpertLayer } from './layer.js';

/** What becomes of a layer: rows of kept experts over columns of former ones. */
export interface ExpertPlan {
  /** `[kept][experts]`: router row i of the new layer is the sum of former rows with these factors. */
  route: number[][];
  /** `[kept][experts]`: matrices of the new expert i, likewise. */
  merge: number[][];
  /** Experts of a token, of a search over them. */
  topK?: number;
}

/**
 * The layer that a plan makes: `router = route router`, expert i the sum of former experts with the factors of `merge[i]`, `topK`
 * as the plan has it. A router's bias becomes `route bias`, which is this library's: the paper's models have none. Experts
 * that are added up have the same width; one that stays alone may have any.
 *
 * @example
 * ```ts
 * // Of three experts the first two become their mean, chosen where either was; the third stays.
 * const half = [0.5, 0.5, 0];
 * const made = applyExpertPlan(layer, { route: [[1, 1, 0], [0, 0, 1]], merge: [half, [0, 0, 1]] });
 * ```
 *
 * @throws `BL_INVALID_SHAPE`, `BL_INVALID_ARGUMENT` (experts in factors)
 */
export function applyExpertPlan(layer: ExpertLayer, plan: ExpertPlan): ExpertLayer {
  const op = 'applyExpertPlan';
  checkDense(op, layer);
  checkObject(op, 'plan', plan);
  const { router, experts, bias } = layer;
  for (const name of ['route', 'merge'] as const) {
    const rows = plan[name];
    checkObject(op, `plan.${name}`, rows);
    const fits = rows.length > 0 && rows.length === plan.route.length;
    if (fits && rows.every((row) => row.length === experts.length)) continue;
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: plan.${name} is not [${plan.route.length}][${experts.length}] (kept, experts)`,
    );
  }
  return {
    router: product(plan.route, router),
    experts: plan.merge.map((factors) => sumOf(op, experts, factors)),
    ...(bias && { bias: product(plan.route, bias) }),
    ...(plan.topK === undefined ? {} : { topK: plan.topK }),
  };
}

/** Rows of sums of a matrix's rows, or of a vector's entries; in float64, rounded once. */
function product(factors: readonly number[][], { data, shape }: Tensor<'f32'>): Tensor<'f32'> {
  const [, cols = 1] = shape;
  const values = factors.flatMap((row) =>
    Array.from({ length: cols }, (_, c) =>
      row.reduce((sum, factor, e) => sum + factor * (data[e * cols + c] as number), 0),
    ),
  );
  return new Tensor('f32', Float32Array.from(values), [factors.length, ...shape.slice(1)]);
}

function sumOf(
  op: string,
  experts: readonly DenseExpert[],
  factors: readonly number[],
): DenseExpert {
  const used = [...experts.keys()].filter((e) => factors[e] !== 0);
  const [only = 0, ...others] = used;
  if (others.length === 0 && factors[only] === 1) return experts[only] as DenseExpert;
  const members = [only, ...others].map((e) => experts[e] as DenseExpert);
  const [first] = members as [DenseExpert];
  const differs = ({ up, gate }: DenseExpert) =>
    `${up.shape}` !== `${first.up.shape}` || (gate === undefined) !== (first.gate === undefined);
  if (members.some(differs)) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: experts that are added up differ in their shapes, expected the same width and all or none with a gate`,
    );
  }
  const part = (name: 'gate' | 'up' | 'down') =>
    combine(
      members.map((expert) => expert[name] as DenseExpert['up']),
      [only, ...others].map((e) => factors[e] as number),
    );
  return {
    ...(first.gate === undefined ? {} : { gate: part('gate') }),
    up: part('up'),
    down: part('down'),
  };
}
