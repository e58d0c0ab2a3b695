import {
  checkPolicyOptions,
  functionOption,
  policy,
  realOption,
  smallWindowOf,
  type WindowOptions,
} from './parts.js';
import type { CachePolicy, Observation, ScoreStep } from './policy.js';
import { headSums } from './scores.js';
import { bestOf, goingOf, sameForAll } from './selections.js';

/** Options of {@link adore}. */
export interface AdoreOptions extends WindowOptions {
  /**
   * Scores the keys of a layer, [keys], from what a step saw; `before` are the last ones. Default: a moving average of the mean weight,
   * `decay * before + (1 - decay) * now`.
   */
  controller?: (before: Float32Array, observation: Observation, step: ScoreStep) => Float32Array;
  /** Of the default controller. Default 0.9. */
  decay?: number;
  /** Told the positions in the text of the keys that a layer releases. */
  onRelease?: (layer: number, positions: Int32Array) => void;
}

/**
 * The release half of ADORE (Zhang et al. 2024, arXiv:2407.02328): a controller scores every key after every step, the cache has
 * a fixed size, and the keys with the lowest scores are released, the same ones for all heads of a layer.
 *
 * In the paper the controller is a GRU that was trained to predict which keys are among the K with the largest weights. None comes with a
 * model, so by default the score is what it was trained to predict, seen rather than predicted: a moving average of the weights. One that is
 * trained can be given.
 *
 * The other half, to rebuild released tokens that score well again by computing them anew beside the current token, is not done: a cache
 * has no token ids, and a step computes tokens that follow one another. `onRelease` tells a caller who has the ids which ones are gone.
 *
 * @param options `budget`; `window` (default 8, budget / 4 at most), `decay` (0.9), `controller` (a moving average), `onRelease` (nobody is told)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, or a `controller` or `onRelease` that is no function,
 *   `BL_OUT_OF_RANGE` for a `budget` below 2, a `window` that is not 1 to `budget - 1` or a `decay` that is not 0 to 1
 *
 * @example
 * ```ts
 * import { adore, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: adore({ budget: 512 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function adore(options: AdoreOptions): CachePolicy {
  const name = 'adore';
  checkPolicyOptions(name, options, 'window', 'controller', 'decay', 'onRelease');
  const { budget, controller, onRelease } = options;
  const window = smallWindowOf(name, options);
  functionOption(name, 'controller', controller);
  functionOption(name, 'onRelease', onRelease);
  const decay = realOption(name, 'decay', options.decay ?? 0.9, 0, 1);
  return policy({
    name,
    budget,
    // A controller that is given may look at the weights themselves.
    sums: controller === undefined ? ['sums'] : undefined,
    observes: (count) => Math.min(count, window),
    score: (before, observation, step) => {
      if (observation === undefined) return [...before];
      const now = (controller ?? movingAverage(decay))(
        before[0] as Float32Array,
        observation,
        step,
      );
      return before.map(() => now);
    },
    select: (view, count) => {
      const kept = bestOf(view.scores[0] as Float32Array, view.keys, count, window, 0);
      const places = view.positions[0] as Int32Array;
      onRelease?.(
        view.layer,
        goingOf(kept, view.keys).map((s) => places[s] as number),
      );
      return sameForAll(view, kept);
    },
  });
}

/** `decay * before + (1 - decay) * mean weight`; the mean weight itself for keys that the step has added. */
function movingAverage(decay: number): NonNullable<AdoreOptions['controller']> {
  return (before, observation, { added }) => {
    const rows = observation.queries * observation.numHeads;
    const sums = headSums(observation);
    return sums.map((sum, s) => {
      const now = sum / rows;
      if (s >= before.length - added) return now;
      return decay * (before[s] as number) + (1 - decay) * now;
    });
  };
}
