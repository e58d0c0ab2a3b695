import type { PagedSequence } from './paged_sequence.js';

/** Where the tokens of one append to a sequence go. The pages are taken; sealed ones are given back at the commit. */
export interface KVStep {
  /** Tokens that are added. */
  readonly count: number;
  /** Slots in recent pages, by token; -1: the token is sealed at once. Undefined: there are no recent pages. */
  readonly recentSlots: Int32Array | undefined;
  /** Slots in sealed pages, by token; -1: it stays recent. */
  readonly sealedSlots: Int32Array;
  /** Recent slots whose tokens move to sealed pages, and where: whole pages. */
  readonly sealFrom: Int32Array;
  readonly sealTo: Int32Array;
  /** Lengths before. */
  readonly sealedBefore: number;
  readonly recentBefore: number;
}

const noSlots = new Int32Array(0);

/** Takes slots where all tokens are written to their pages at once. */
export function directStep(sealed: PagedSequence, count: number, copy: Copy): KVStep {
  const sealedBefore = sealed.length;
  const { slots, copies } = sealed.append(count);
  copy('sealed', copies);
  return {
    count,
    recentSlots: undefined,
    sealedSlots: slots,
    sealFrom: noSlots,
    sealTo: noSlots,
    sealedBefore,
    recentBefore: 0,
  };
}

/** Copies pages of one of the two kinds. */
export type Copy = (
  pages: 'sealed' | 'recent',
  copies: readonly { from: number; to: number }[],
) => void;

/**
 * Takes slots for `count` tokens behind `sealed` and `recent`, and decides what is sealed: whole pages, of which no token is
 * among the last `keep`.
 *
 * ```
 *   sealed | recent: pages to seal      | new: fill | pages at once  | recent |
 *   -------+----------------------------+-----------+----------------+--------+
 *                                       ^ sealedBefore + recentBefore
 * ```
 */
export function recentStep(
  sealed: PagedSequence,
  recent: PagedSequence,
  count: number,
  keep: number,
  copy: Copy,
): KVStep {
  const { pageSize } = sealed.pool;
  const sealedBefore = sealed.length;
  const recentBefore = recent.length;
  const length = sealedBefore + recentBefore + count;
  const end = Math.floor(Math.max(0, length - keep) / pageSize) * pageSize;
  const numSealed = Math.max(0, end - sealedBefore) / pageSize;
  const fromRecent = Math.min(numSealed, Math.ceil(recentBefore / pageSize));
  const atOnce = (numSealed - fromRecent) * pageSize;
  const fill = atOnce > 0 ? fromRecent * pageSize - recentBefore : count;

  const { slots, copies } = recent.append(count - atOnce);
  copy('recent', copies);
  let sealTo = noSlots;
  const sealedSlots = new Int32Array(count).fill(-1);
  try {
    const all = Int32Array.from(sealed.append(numSealed * pageSize).slots);
    sealTo = all.subarray(0, fromRecent * pageSize);
    sealedSlots.set(all.subarray(fromRecent * pageSize), fill);
  } catch (error) {
    recent.trim(recentBefore);
    throw error;
  }
  const recentSlots = new Int32Array(count).fill(-1);
  recentSlots.set(slots.subarray(0, fill));
  recentSlots.set(slots.subarray(fill), fill + atOnce);
  const sealFrom = recent.slots(0, fromRecent * pageSize);
  return { count, recentSlots, sealedSlots, sealFrom, sealTo, sealedBefore, recentBefore };
}
