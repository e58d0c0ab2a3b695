import type { PageCopy } from './changes.js';
import type { PagedSequence } from './paged_sequence.js';

/** The two kinds of pages. */
export type Kind = 'sealed' | 'recent';

/** What a step decides: which tokens go where. */
interface Plan {
  /** Tokens that are added. */
  readonly count: number;
  /** Of these, the ones that go to sealed pages at once: `atOnce` from number `fill` on. */
  readonly fill: number;
  readonly atOnce: number;
  /** Recent tokens that move to sealed pages: whole pages. */
  readonly leaving: number;
}

/**
 * Where the tokens of one append to a sequence go. The pages are taken, and stay as they are until the commit, which gives recent
 * ones back.
 *
 * ```
 *   sealed | recent: leaving            | new: fill | at once        | recent |
 *   -------+----------------------------+-----------+----------------+--------+
 *                                       ^ sealedBefore + recentBefore
 * ```
 */
export class KVStep {
  readonly count: number;
  readonly atOnce: number;
  readonly leaving: number;
  readonly #fill: number;
  readonly #sealed: PagedSequence;
  readonly #recent: PagedSequence | undefined;

  constructor(
    sealed: PagedSequence,
    recent: PagedSequence | undefined,
    /** Tokens before. */
    readonly sealedBefore: number,
    readonly recentBefore: number,
    { count, fill, atOnce, leaving }: Plan,
  ) {
    this.#sealed = sealed;
    this.#recent = recent;
    this.count = count;
    this.#fill = fill;
    this.atOnce = atOnce;
    this.leaving = leaving;
  }

  /** Tokens that go to recent pages. */
  get toRecent(): number {
    return this.count - this.atOnce;
  }

  /** Writes the slot of each new token in recent pages, -1 for those that go to sealed ones at once. */
  writeRecentSlots(to: Int32Array, at: number): void {
    const recent = this.#recent as PagedSequence;
    const begin = this.recentBefore;
    const end = begin + this.toRecent;
    const border = Math.min(begin + this.#fill, end);
    const next = recent.writeSlots(to, at, begin, border);
    recent.writeSlots(to.fill(-1, next, next + this.atOnce), next + this.atOnce, border, end);
  }

  /** Writes the slot of each new token in sealed pages, -1 for those that stay recent. */
  writeSealedSlots(to: Int32Array, at: number): void {
    const begin = this.sealedBefore + this.leaving;
    if (this.atOnce < this.count) to.fill(-1, at, at + this.count);
    this.#sealed.writeSlots(to, at + this.#fill, begin, begin + this.atOnce);
  }

  /** Writes the slots of what leaves recent pages, and where it goes. */
  writeLeaving(from: Int32Array, to: Int32Array, at: number): void {
    if (this.leaving === 0) return;
    this.#recent?.writeSlots(from, at, 0, this.leaving);
    this.#sealed.writeSlots(to, at, this.sealedBefore, this.sealedBefore + this.leaving);
  }

  /** Pages that attention reads, without the recent ones that leave. */
  numPages(of: Kind): number {
    return of === 'sealed' ? this.#sealed.numPages : this.#recentPages - this.#leavingPages;
  }

  /** Tokens in them. */
  length(of: Kind): number {
    if (of === 'sealed') return this.#sealed.length;
    return (this.#recent?.length ?? 0) - this.leaving;
  }

  writePages(of: Kind, to: Int32Array, at: number): void {
    if (of === 'sealed') this.#sealed.writePages(to, at);
    else this.#recent?.writePages(to, at, this.#leavingPages);
  }

  get #recentPages(): number {
    return this.#recent?.numPages ?? 0;
  }

  get #leavingPages(): number {
    return this.leaving / this.#sealed.pool.pageSize;
  }
}

/** Copies pages of one of the two kinds. */
export type Copy = (pages: Kind, copies: readonly PageCopy[]) => void;

/** Takes pages where all tokens are written to sealed ones at once. */
export function directStep(sealed: PagedSequence, count: number, copy: Copy): KVStep {
  const before = sealed.length;
  copy('sealed', sealed.extend(count));
  return new KVStep(sealed, undefined, before, 0, { count, fill: 0, atOnce: count, leaving: 0 });
}

/**
 * Takes pages for `count` tokens behind `sealed` and `recent`, and decides what is sealed: whole pages, of which no token is
 * among the last `keep`.
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
  const newlySealed = Math.max(0, end - sealedBefore);
  const leaving = Math.min(newlySealed, Math.ceil(recentBefore / pageSize) * pageSize);
  const atOnce = newlySealed - leaving;
  const fill = atOnce > 0 ? leaving - recentBefore : count;

  copy('recent', recent.extend(count - atOnce));
  try {
    sealed.extend(newlySealed); // behind whole pages: nothing to copy
  } catch (error) {
    recent.trim(recentBefore);
    throw error;
  }
  const plan = { count, fill, atOnce, leaving };
  return new KVStep(sealed, recent, sealedBefore, recentBefore, plan);
}
