import { checkOptions } from '../../arguments.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import type { MoERoutes } from './moe_route.js';
import { checkInteger, emptyRoutes, makeRoutes, orderOf, scoresOf } from './values.js';

/** Options of {@link expertChoice}. */
export interface ExpertChoiceOptions {
  /** Tokens that each expert takes, 0 to their number. */
  capacity: number;
}

/**
 * Expert choice (Zhou et al. 2022): with `S = softmax(logits)` over the experts of each token, every expert takes the
 * `capacity` tokens of its highest S, and weighs them by it. All experts are equally busy; a token goes to any number of
 * them, perhaps none. The paper's capacity is `tokens * c / experts`, c experts of a token on average.
 *
 * Of equals the token with the lower number comes first.
 *
 * @param logits [tokens, experts] f32, f16 or bf16
 * @returns routes `[tokens, most experts of a token (at least 1)]`, a token's experts by their numbers, then -1
 * @throws as {@link moeRoute}; `BL_INVALID_ARGUMENT` within a sequence: it reads values
 *
 * @example
 * ```ts
 * const logits = new Tensor('f32', [2, 0, 1, 0, 0, 3], [3, 2]);
 * expertChoice(logits, { capacity: 1 }).indices.toArray(); // [0, -1, 1]: token 1 goes nowhere
 * ```
 */
export function expertChoice(logits: Tensor<FloatDType>, options: ExpertChoiceOptions): MoERoutes {
  const op = 'expertChoice';
  checkOptions(op, options, new Set(['capacity']));
  const scores = scoresOf(op, logits, 'softmax').data;
  const [tokens = 0, experts = 0] = logits.shape;
  checkInteger(op, 'capacity', options.capacity, 0, tokens);
  const chosen: number[][] = Array.from({ length: tokens }, () => []);
  const column = new Float32Array(tokens);
  for (let e = 0; e < experts; e++) {
    for (let t = 0; t < tokens; t++) column[t] = scores[t * experts + e] as number;
    for (const t of orderOf(column).slice(0, options.capacity)) chosen[t]?.push(e);
  }
  const width = chosen.reduce((most, own) => Math.max(most, own.length), 1);
  const routes = emptyRoutes(tokens, width);
  chosen.forEach((own, t) => {
    own.forEach((e, i) => {
      routes.indices[t * width + i] = e;
      routes.weights[t * width + i] = scores[t * experts + e] as number;
    });
  });
  return makeRoutes(routes);
}
