import {
  checkPolicyOptions,
  functionOption,
  perCache,
  policy,
  realOption,
  smallWindowOf,
  type WindowOptions,
} from './parts.js';
import type { CachePolicy, LayerView, Observation, ScoreStep } from './policy.js';
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
 * a fixed size, and the keys with the lowest scores are released, the same ones in all heads and layers (the paper's uniform schedule).
 * Default score: `decay * before + (1 - decay) * now`, now the mean over heads and the last `window` queries of the key's weights; what is
 * compared is its mean over layers.
 *
 * What differs from the paper, which trains a model together with its controller (its code is not public):
 *
 * - The controller there is a GRU over the token embeddings, trained to predict which keys are among the K with the largest weights. None
 *   comes with a model, so by default the score is what it was trained to predict, seen rather than predicted. One that is
 *   trained can be given (`controller`); it sees weights, not embeddings.
 * - The other half is not done: released tokens that score well again are computed anew beside the current token, R of them a step. A cache
 *   here has no token ids, released tokens have no scores without the GRU, and a step computes tokens that follow one another.
 *   `onRelease` tells a caller who has the ids which ones are gone.
 * - Keys are released after each block of a prompt and every 64 tokens of a generation, there after every token.
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
  const memory = perCache((): { mean?: Float32Array } => ({}));
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
    budgets: (layers) => {
      memory(layers[0] as LayerView).mean = meanOf(layers);
      return layers.map(() => budget);
    },
    select: (view, count) => {
      const mean = memory(view).mean as Float32Array;
      const kept = bestOf(mean, view.keys, count, window, 0);
      const places = view.positions[0] as Int32Array;
      onRelease?.(
        view.layer,
        goingOf(kept, view.keys).map((s) => places[s] as number),
      );
      return sameForAll(view, kept);
    },
  });
}

/** Mean over layers of their scores; all layers have the same keys. */
function meanOf(layers: readonly LayerView[]): Float32Array {
  const mean = new Float32Array((layers[0] as LayerView).keys);
  for (const { scores } of layers) {
    for (const [s, score] of (scores[0] as Float32Array).entries()) {
      mean[s] = (mean[s] as number) + score / layers.length;
    }
  }
  return mean;
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
