import { checkNumber, checkOptions } from '../../arguments.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import type { MoERoutes } from './moe_route.js';
import {
  groupRoutes,
  type SwitchAndMixtureOptions,
  type switchAndMixture,
} from './switch_and_mixture.js';
import { logitsOf } from './values.js';

/** Options of {@link switchAndMixtureLosses}. */
export interface SwitchAndMixtureLossOptions extends SwitchAndMixtureOptions {
  /** What the losses count in the gradient. Default 1 each. */
  balanceWeight?: number;
  groupBalanceWeight?: number;
  alignmentWeight?: number;
}

/** What {@link switchAndMixtureLosses} gives. */
export interface SwitchAndMixtureLosses {
  /** Those of {@link switchAndMixture}. */
  routes: MoERoutes;
  /** Of experts: topK where all are used alike. */
  balance: number;
  /** Of groups: 1 where all are used alike. */
  groupBalance: number;
  /** 0 where no expert of another group is likelier than a token's last choice. */
  alignment: number;
  /** Of the weighted sum of all three. */
  gradient: {
    /** Shape `[tokens, groups]`; undefined where there is one router. */
    switchLogits: Tensor<'f32'> | undefined;
    /** Shape `[tokens, experts]` */
    logits: Tensor<'f32'>;
  };
}

/**
 * Losses of {@link switchAndMixture} ("Towards More Effective and Economic Sparsely-Activated Model", Jiang et al. 2021) over a
 * batch of T tokens, E experts and G groups, with p[t, e] the probability of an expert, `softmax(logits)`, or with two routers
 * `softmax(switchLogits)` of its group times the softmax of `logits` within the group:
 *
 * - `balance = sum over k of E * sum over e of f_k[e] * mean(p[:, e])`, f_k[e] the part of the tokens whose k-th choice is e,
 * - `groupBalance = G * sum over g of F[g] * mean(p[:, g])`, F[g] the part of the tokens in a group, p[t, g] the sum over its experts,
 * - `alignment = mean over t of the sum over experts e of other groups of max(0, p[t, e] - p[t, c])`, c the token's last choice: it
 *   makes the topK of the group the topK of all, so that choosing a group first loses nothing.
 *
 * `balance` and `alignment` are those of `sam_gate` in Hetu (PKU-DAIR/Hetu, SAMGate.py, SamMax.cu), which has one router, sums
 * `alignment` over tokens and adds both with weight 1; its kernel takes a group's bounds at multiples of G in place of E / G, which are
 * the same where G * G = E. This library's: `groupBalance`, which is Switch's loss over groups, and p of two routers. f, F and the
 * choices count as constant in the gradient. In float64; 0 of no tokens.
 *
 * @param switchLogits [tokens, groups], or undefined with `groups`, as in {@link switchAndMixture}
 * @param logits [tokens, experts]
 * @throws as {@link switchAndMixture}; `BL_INVALID_ARGUMENT` (a weight that is no finite number)
 *
 * @example
 * ```ts
 * const logits = new Tensor('f32', [2, 0, 3, 3, 0, 0, 9, 0], [2, 4]);
 * const { balance, alignment, gradient } = switchAndMixtureLosses(undefined, logits, { topK: 2, groups: 2 });
 * ```
 */
export function switchAndMixtureLosses(
  switchLogits: Tensor<FloatDType> | undefined,
  logits: Tensor<FloatDType>,
  options: SwitchAndMixtureLossOptions,
): SwitchAndMixtureLosses {
  const op = 'switchAndMixtureLosses';
  checkOptions(op, options, known);
  const { topK, groups: ofOne, balanceWeight = 1, groupBalanceWeight = 1 } = options;
  const { alignmentWeight = 1 } = options;
  const weights = { balanceWeight, groupBalanceWeight, alignmentWeight };
  for (const [name, weight] of Object.entries(weights)) {
    checkNumber(op, name, weight, 'a finite number', Number.isFinite);
  }
  const routes = groupRoutes(op, switchLogits, logits, options);
  const { values, rows: tokens, cols: experts } = logitsOf(op, 'logits', logits);
  const outer = switchLogits && logitsOf(op, 'switchLogits', switchLogits).values;
  const groups = switchLogits?.shape[1] ?? (ofOne as number);
  const size = experts / groups;
  const groupOf = (e: number) => Math.floor(e / size);
  const chosen = routes.indices.data;

  // Of all tokens: how many times an expert and a group are chosen.
  const uses = new Float64Array(experts);
  const visits = new Float64Array(groups);
  for (const e of chosen) (uses[e] as number) += 1;
  for (let t = 0; t < tokens; t++) (visits[groupOf(chosen[t * topK] as number)] as number) += 1;

  const losses = { balance: 0, groupBalance: 0, alignment: 0 };
  const inner = Tensor.zeros('f32', [tokens, experts]);
  const ofGroups = outer && Tensor.zeros('f32', [tokens, groups]);
  const slope = new Float64Array(experts); // of the weighted sum by p of this token
  for (let t = 0; t < tokens; t++) {
    const row = (all: ArrayLike<number>, width: number) =>
      Array.from({ length: width }, (_, i) => all[t * width + i] as number);
    const levels = levelsOf(row(values, experts), outer && row(outer, groups));
    const { p } = levels;
    const last = chosen[(t + 1) * topK - 1] as number;
    slope.fill(0);
    for (let e = 0; e < experts; e++) {
      const balance = (experts * (uses[e] as number)) / tokens;
      const groupBalance = (groups * (visits[groupOf(e)] as number)) / tokens;
      losses.balance += (balance * (p[e] as number)) / tokens;
      losses.groupBalance += (groupBalance * (p[e] as number)) / tokens;
      (slope[e] as number) +=
        (balanceWeight * balance + groupBalanceWeight * groupBalance) / tokens;
      const ahead = (p[e] as number) - (p[last] as number);
      if (groupOf(e) === groupOf(last) || ahead <= 0) continue;
      losses.alignment += ahead / tokens;
      (slope[e] as number) += alignmentWeight / tokens;
      (slope[last] as number) -= alignmentWeight / tokens;
    }
    const back = goBack(levels, slope);
    inner.data.set(back.logits, t * experts);
    ofGroups?.data.set(back.switchLogits, t * groups);
  }
  return { routes, ...losses, gradient: { switchLogits: ofGroups, logits: inner } };
}

/** Probabilities of a token: of groups, of experts within each, and of experts. */
interface Levels {
  switches: number[];
  mixtures: number[][];
  p: number[];
}

/** With one router all experts are one group. */
function levelsOf(logits: readonly number[], switchLogits: readonly number[] | undefined): Levels {
  const switches = switchLogits === undefined ? [1] : softmax(switchLogits);
  const size = logits.length / switches.length;
  const mixtures = switches.map((_, g) => softmax(logits.slice(g * size, (g + 1) * size)));
  return { switches, mixtures, p: mixtures.flatMap((m, g) => m.map((x) => x * at(switches, g))) };
}

/** Gradients of a token's logits from those of its p. */
function goBack({ switches, mixtures }: Levels, slope: Float64Array) {
  const size = slope.length / mixtures.length;
  const met = mixtures.map((m, g) => m.reduce((sum, x, i) => sum + x * at(slope, g * size + i), 0));
  const logits = mixtures.flatMap((m, g) =>
    m.map((x, i) => at(switches, g) * x * (at(slope, g * size + i) - at(met, g))),
  );
  const mean = switches.reduce((sum, s, g) => sum + s * at(met, g), 0);
  return { logits, switchLogits: switches.map((s, g) => s * (at(met, g) - mean)) };
}

const at = (values: ArrayLike<number>, i: number): number => values[i] as number;

const known = new Set(['topK', 'groups', 'balanceWeight', 'groupBalanceWeight', 'alignmentWeight']);

/** Of logits that are not all -infinity; those that are give probability 0. */
function softmax(logits: readonly number[]): number[] {
  const largest = Math.max(...logits);
  if (largest === Number.NEGATIVE_INFINITY) return logits.map(() => 0);
  const powers = logits.map((z) => Math.exp(z - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}
