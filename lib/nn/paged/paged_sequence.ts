import { argumentError } from '../../errors.js';
import type { BlockPool, ChunkMatch } from './block_pool.js';
import { BlockTable } from './block_table.js';
import type { Appended, PageCopy, PageReposition, Removed } from './changes.js';
import { tokenIds, wholeNumber } from './checks.js';
import { chunkDeltas, registerChunkPages, registerPrefix } from './registration.js';
import { planRemoval, type RemovalOptions } from './removal.js';
import { type SwappedPages, swapIn, swapOut } from './swap.js';

const maxTokens = 2 ** 31 - 1;
const noCopies: readonly PageCopy[] = Object.freeze([]);
const noSlots = new Int32Array(0);
const nothing: Removed = Object.freeze({ copies: noCopies, from: noSlots, to: noSlots });

/**
 * Tokens in pages of a {@link BlockPool}: a length and a block table. Token t is token t % pageSize of page
 * `blockTable()[floor(t / pageSize)]`. Begins with `pool.create()`, `pool.match()` or {@link fork}, ends with {@link free}.
 *
 * Methods throw `BL_DETACHED` after `free()`, `BL_INVALID_ARGUMENT` while the sequence is swapped out, `BL_OUT_OF_RANGE` for
 * positions outside of it and `BL_OUT_OF_MEMORY` where the pool lacks pages, each before anything is changed.
 */
export class PagedSequence {
  readonly #pool: BlockPool;
  #table = new BlockTable();
  #length = 0;
  /** Up to here the tokens stand behind one another as they were computed: what may be registered as a prefix. */
  #intact = Number.POSITIVE_INFINITY;
  #swapped: SwappedPages | undefined;
  #freed = false;

  /** @internal */
  constructor(pool: BlockPool) {
    this.#pool = pool;
    pool.countSequence(1);
  }

  get pool(): BlockPool {
    return this.#pool;
  }

  /** Tokens. */
  get length(): number {
    return this.#length;
  }

  /** Pages, ceil(length / pageSize). */
  get numPages(): number {
    return this.#table.size;
  }

  get freed(): boolean {
    return this.#freed;
  }

  /** Whether {@link swapOut} has taken its pages. */
  get swapped(): boolean {
    return this.#swapped !== undefined;
  }

  /** Its pages, a copy. */
  blockTable(): Int32Array {
    this.#check('blockTable');
    return Int32Array.from(this.#table.pages);
  }

  /** Slots of tokens [begin, end). */
  slots(begin = 0, end = this.#length): Int32Array {
    const { pageSize } = this.#check('slots');
    this.#checkRange('slots', begin, end);
    return this.#table.slots(pageSize, begin, end);
  }

  /** Adds `count` tokens. */
  append(count: number): Appended {
    const copies = this.extend(count);
    if (count === 0) return { slots: noSlots, copies };
    // Not the length of before: an eviction policy may have trimmed this very sequence.
    const end = this.#length;
    return { slots: this.#table.slots(this.#pool.pageSize, end - count, end), copies };
  }

  /** {@link append} for who writes the slots elsewhere ({@link writeSlots}): the copies. @internal */
  extend(count: number): readonly PageCopy[] {
    const pool = this.#check('append');
    const { pageSize } = pool;
    const table = this.#table;
    if (count === 0) return noCopies;
    let copied = -1;
    for (;;) {
      wholeNumber('append', 'count', count, 0, maxTokens - this.#length);
      const last = this.#length % pageSize === 0 ? -1 : table.at(table.size - 1);
      copied = last < 0 || pool.isWritable(last) ? -1 : last;
      const pages = Math.ceil((this.#length + count) / pageSize) - table.size;
      const wanted = pages + (copied < 0 ? 0 : 1);
      if (copied >= 0 && pool.isAlone(copied) && !pool.isAvailable(wanted)) {
        // Only the index has it as well, and gives way.
        pool.index.remove(copied);
      } else if (pool.ensure(wanted, 'append')) {
        break;
      }
      this.#check('append');
    }
    let copies = noCopies;
    if (copied >= 0) {
      const to = pool.take();
      table.pages[table.size - 1] = to;
      pool.release(copied);
      copies = [{ from: copied, to }];
    }
    const end = this.#length + count;
    while (table.size * pageSize < end) table.pages.push(pool.take());
    this.#length = end;
    return copies;
  }

  /** Another sequence of the same tokens; all pages are shared until one of the two writes. */
  fork(): PagedSequence {
    const pool = this.#check('fork');
    const other = new PagedSequence(pool);
    other.#table = this.#table.share(pool);
    other.#length = this.#length;
    other.#intact = this.#intact;
    return other;
  }

  /** Forgets all tokens but the first `length`. */
  trim(length: number): void {
    const pool = this.#check('trim');
    wholeNumber('trim', 'length', length, 0, this.#length);
    this.#table.trim(pool, Math.ceil(length / pool.pageSize));
    this.#length = length;
    if (length <= this.#intact) this.#intact = Number.POSITIVE_INFINITY;
  }

  /**
   * Forgets tokens [begin, end). Pages within are unlinked; in a page that is left in part tokens move up, and if
   * end - begin is no multiple of the page size, so do all behind it.
   */
  removeRange(begin: number, end: number, options: RemovalOptions = {}): Removed {
    const pool = this.#check('removeRange');
    for (;;) {
      this.#checkRange('removeRange', begin, end);
      if (begin === end) return nothing;
      if (end === this.#length) {
        this.trim(begin);
        return nothing;
      }
      const plan = planRemoval(pool, this.#table, this.#length, begin, end, options);
      if (plan.indexed.length > 0 && !pool.isAvailable(plan.numFresh)) {
        for (const page of plan.indexed) pool.index.remove(page);
      } else if (pool.ensure(plan.numFresh, 'removeRange')) {
        // New pages are taken before any is given back: what moves is still there.
        const fresh = Array.from({ length: plan.numFresh }, () => pool.take());
        const removed = plan.finish(fresh);
        for (const page of plan.released.reverse()) pool.release(page);
        this.#table = plan.table;
        this.#length -= end - begin;
        this.#intact = Math.min(this.#intact, begin);
        return removed;
      }
      this.#check('removeRange');
    }
  }

  /** Gives its pages back. It can not be used any more, nor be freed again. */
  free(): void {
    if (this.#freed) this.#check('free');
    this.#table.trim(this.#pool, 0);
    this.#table = new BlockTable();
    this.#length = 0;
    this.#swapped = undefined;
    this.#freed = true;
    this.#pool.countSequence(-1);
  }

  /** {@link free}, for `using`; nothing if that has been done. */
  [Symbol.dispose](): void {
    if (!this.#freed) this.free();
  }

  /**
   * Makes its full pages known by content, so that `pool.match()` finds them: now, and after `free()` until memory is
   * short. A page whose content is known already gives way to the known one. Pages behind a removed range are left out.
   *
   * @param tokens ids of its first tokens
   * @returns pages registered, from the first on
   */
  register(tokens: ArrayLike<number>): number {
    const pool = this.#check('register');
    const ids = tokenIds('register', tokens, this.#length + 1);
    wholeNumber('register', 'tokens.length', ids.length, 0, this.#length);
    const count = Math.floor(Math.min(ids.length, this.#intact) / pool.pageSize);
    registerPrefix(pool, this.#table, ids, count);
    return count;
  }

  /**
   * Makes full pages from token `begin` on, the begin of a page, known by their own content, whatever stands before them, so
   * that `pool.matchChunk()` finds them. For tokens computed without sight of those before (Block-Attention).
   *
   * @param tokens ids of the chunk's tokens
   * @param position where the chunk's first token stood when its key was rotated
   * @returns pages registered
   */
  registerChunk(begin: number, tokens: ArrayLike<number>, position = begin): number {
    const pool = this.#check('registerChunk');
    wholeNumber('registerChunk', 'begin', begin, 0, this.#length);
    this.#checkPageBegin('registerChunk', 'begin', begin);
    const ids = tokenIds('registerChunk', tokens, this.#length + 1);
    wholeNumber('registerChunk', 'tokens.length', ids.length, 0, this.#length - begin);
    wholeNumber('registerChunk', 'position', position, 0, maxTokens - ids.length);
    return registerChunkPages(pool, this.#table, begin / pool.pageSize, ids, position);
  }

  /**
   * Adds the tokens of a cached chunk, the first one to stand at `position`; the sequence must be at the end of a page.
   * Pages that were computed for the same position are shared.
   *
   * @returns the others: to be copied, with keys turned on by `delta` positions
   */
  appendChunk(chunk: ChunkMatch, position = this.#length): PageReposition[] {
    const pool = this.#check('appendChunk');
    for (;;) {
      this.#checkPageBegin('appendChunk', 'length', this.#length);
      const { pages, deltas } = chunkDeltas(pool, chunk, position);
      wholeNumber('appendChunk', 'position', position, 0, maxTokens - pages.length * pool.pageSize);
      const moved = deltas.filter((delta) => delta !== 0).length;
      if (pool.ensure(moved, 'appendChunk')) {
        this.#intact = Math.min(this.#intact, this.#length);
        this.#length += pages.length * pool.pageSize;
        const moves: PageReposition[] = [];
        for (const [i, from] of pages.entries()) {
          const delta = deltas[i] as number;
          const to = delta === 0 ? from : pool.take();
          if (delta === 0) pool.share(from);
          else moves.push({ from, to, delta });
          this.#table.pages.push(to);
        }
        return moves;
      }
      this.#check('appendChunk');
    }
  }

  /**
   * Gives back the pages that it does not share, whose bytes are to be kept elsewhere.
   *
   * @returns these pages; their bytes are there until the next operation on the pool
   */
  swapOut(): Int32Array {
    const pool = this.#check('swapOut');
    const [pages, swapped] = swapOut(pool, this.#table);
    this.#swapped = swapped;
    return pages;
  }

  /**
   * Takes pages again for those that {@link swapOut} gave.
   *
   * @returns where the bytes of each go; -1: nowhere, its content is registered and has stayed in memory
   */
  swapIn(): Int32Array {
    for (;;) {
      if (this.#swapped === undefined) {
        this.#check('swapIn');
        throw argumentError('BL_INVALID_ARGUMENT', 'swapIn: the sequence is not swapped out');
      }
      const pages = swapIn(this.#pool, this.#table, this.#swapped);
      if (pages === undefined) continue;
      this.#swapped = undefined;
      return pages;
    }
  }

  /** Writes the slots of tokens [begin, end), which it has, and returns where they end. @internal */
  writeSlots(to: Int32Array, at: number, begin: number, end: number): number {
    return this.#table.writeSlots(to, at, this.#pool.pageSize, begin, end);
  }

  /** Writes its pages from number `from` on. @internal */
  writePages(to: Int32Array, at: number, from = 0): void {
    const { pages } = this.#table;
    for (let i = from; i < pages.length; i++) to[at + i - from] = pages[i] as number;
  }

  /** Up to here it may be registered. @internal */
  get prefixLength(): number {
    return this.#intact;
  }

  /** @internal */
  limitPrefix(length: number): void {
    this.#intact = Math.min(this.#intact, length);
  }

  /** Begins a new sequence with pages found in the index. @internal */
  addCached(pages: readonly number[], intact = Number.POSITIVE_INFINITY): void {
    for (const page of pages) {
      this.#pool.share(page);
      this.#table.pages.push(page);
    }
    this.#length = pages.length * this.#pool.pageSize;
    this.#intact = intact;
  }

  #check(what: string): BlockPool {
    if (this.#freed) throw argumentError('BL_DETACHED', `PagedSequence: ${what} after free()`);
    if (this.#swapped !== undefined) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `PagedSequence: ${what} while it is swapped out; call swapIn() first`,
      );
    }
    return this.#pool;
  }

  #checkRange(what: string, begin: number, end: number): void {
    wholeNumber(what, 'begin', begin, 0, this.#length);
    wholeNumber(what, 'end', end, begin, this.#length);
  }

  #checkPageBegin(what: string, name: string, value: number): void {
    const { pageSize } = this.#pool;
    if (value % pageSize === 0) return;
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `${what}: ${name} is ${value}, expected a multiple of ${pageSize} (= pageSize)`,
    );
  }
}
