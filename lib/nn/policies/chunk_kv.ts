import {
  checkPolicyOptions,
  latest,
  perCache,
  policy,
  range,
  wholeOption,
  windowOf,
  type WindowOptions,
} from './parts.js';
import type { CachePolicy } from './policy.js';

/** Options of {@link chunkKV}. */
export interface ChunkKVOptions extends WindowOptions {
  /** Keys of a chunk. Default 10. */
  chunk?: number;
  /** Layers that share a choice. Default 1. */
  reuse?: number;
}

/**
 * ChunkKV (Liu et al. 2025, arXiv:2502.00299): older keys stay or go by chunks of `chunk` neighbours; score of a chunk = sum over its keys, all
 * heads and the last `window` queries of the weights. Of the last chunk that fits, the first keys. Of every `reuse` layers the first one's
 * choice serves all, as long as they have as many keys and the same budget. The newest `window` stay.
 *
 * @param options `budget`; `window` (default 32, budget / 2 at most), `chunk` (10), `reuse` (1)
 * @throws `BL_INVALID_ARGUMENT` for options that are no object or have other names, `BL_OUT_OF_RANGE` for a `budget` below 2, a `window` that is
 *   not 1 to `budget - 1`, a `chunk` or `reuse` below 1
 *
 * @example
 * ```ts
 * import { chunkKV, load } from 'bitloom/nn';
 *
 * const decoder = await load('model.gguf');
 * const cache = { policy: chunkKV({ budget: 512, chunk: 16 }) };
 * console.log(await decoder.generate('Once upon a time', { cache }).text());
 * ```
 */
export function chunkKV(options: ChunkKVOptions): CachePolicy {
  const name = 'chunkKV';
  checkPolicyOptions(name, options, 'window', 'chunk', 'reuse');
  const window = windowOf(name, options);
  const size = wholeOption(name, 'chunk', options.chunk ?? 10, 1);
  const reuse = wholeOption(name, 'reuse', options.reuse ?? 1, 1);
  const memory = perCache(
    (): { chosen?: { keys: number; count: number; kept: Int32Array } } => ({}),
  );
  return policy({
    name,
    budget: options.budget,
    sums: ['sums'],
    observes: (count) => Math.min(count, window),
    score: latest,
    select: (view, count) => {
      const { keys, numKvHeads, layer, scores } = view;
      const known = memory(view);
      const isFirst = layer % reuse === 0;
      if (isFirst || known.chosen?.keys !== keys || known.chosen.count !== count) {
        const kept = bestChunks(scores, keys, count, Math.min(window, count), size);
        known.chosen = { keys, count, kept };
      }
      const { kept } = known.chosen;
      return range(0, numKvHeads).map(() => kept);
    },
  });
}

function bestChunks(
  scores: readonly Float32Array[],
  keys: number,
  count: number,
  window: number,
  size: number,
): Int32Array {
  const older = keys - window;
  const sums = new Float32Array(Math.ceil(older / size));
  for (const head of scores) {
    for (let s = 0; s < older; s++) {
      const chunk = Math.floor(s / size);
      sums[chunk] = (sums[chunk] as number) + (head[s] as number);
    }
  }
  const kept: number[] = [];
  const order = range(0, sums.length).sort(
    (a, b) => (sums[b] as number) - (sums[a] as number) || a - b,
  );
  for (const chunk of order) {
    const room = count - window - kept.length;
    if (room <= 0) break;
    kept.push(...range(chunk * size, Math.min((chunk + 1) * size, older)).slice(0, room));
  }
  return Int32Array.from([...kept.sort((a, b) => a - b), ...range(older, keys)]);
}
