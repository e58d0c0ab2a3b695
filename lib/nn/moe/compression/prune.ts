import { checkObject } from '../../../arguments.js';
import { argumentError } from '../../../errors.js';
import { checkLayer, type ExpertLayer, takeBias, takeRows } from './layer.js';

/**
 * Keeps the `keep` experts that most tokens went to, in the order of their numbers; their router rows stay as they are.
 * Lossless where no token would go to the others. Of equal counts the lower number is kept.
 *
 * @example
 * ```ts
 * const counts = expertCounts(decoder, tokens);
 * await compressModel('model.gguf', 'pruned.gguf', (layer, i) => pruneByUsage(layer, counts[i] as number[], 6));
 * ```
 *
 * @param counts of each expert: `statistics().counts` of `RouterLoad`
 * @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE`
 */
export function pruneByUsage(
  layer: ExpertLayer,
  counts: readonly number[],
  keep: number,
): ExpertLayer & {
  /** Former numbers of the experts that are left. */
  kept: number[];
} {
  const op = 'pruneByUsage';
  checkLayer(op, layer);
  checkObject(op, 'counts', counts);
  const { experts, router, bias } = layer;
  if (counts.length !== experts.length || !counts.every((count) => count >= 0)) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${op}: counts is [${counts}], expected a number of at least 0 for each of ${experts.length} experts`,
    );
  }
  if (!Number.isInteger(keep) || keep < 1 || keep > experts.length) {
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${op}: keep is ${keep}, expected a whole number from 1 to ${experts.length}`,
    );
  }
  const kept = experts
    .map((_, e) => e)
    .sort((a, b) => (counts[b] as number) - (counts[a] as number) || a - b)
    .slice(0, keep)
    .sort((a, b) => a - b);
  return {
    router: takeRows(router, kept),
    ...takeBias(bias, kept),
    experts: kept.map((e) => experts[e] as (typeof experts)[0]),
    kept,
  };
}
