import { argumentError } from '../../errors.js';
import type { BlockPool } from './block_pool.js';
import { BlockTable } from './block_table.js';
import type { PageCopy, Removed } from './changes.js';

/** Options of {@link PagedSequence.removeRange}. */
export interface RemovalOptions {
  /**
   * Moves fill whole pages, for formats that are written page by page: a page that two others are joined in gets all its
   * tokens anew. The range must be a multiple of the page size.
   */
  wholePages?: boolean;
}

/** How to remove a range: what is needed, and what to do once it is there. */
export interface RemovalPlan {
  /** New pages that are needed. */
  numFresh: number;
  /** Pages that are copied only because the index has them as well. */
  indexed: number[];
  table: BlockTable;
  /** Pages that lose a reference. */
  released: number[];
  finish: (fresh: readonly number[]) => Removed;
}

/**
 * Plans the removal of tokens [begin, end) of `length`, end < length. Changes nothing.
 *
 * With a range of k pages and a rest, the pages behind it stand k places earlier. Without a rest their tokens stay where
 * they are in their pages, and only the page that `begin` cuts is joined with the one that `end` cuts. With a rest all tokens
 * behind move up by it, in place where their sequence has the page alone: the slot at place p then is that of the token
 * at p + k * page_size or at p, which is not behind the token that comes there.
 */
export function planRemoval(
  pool: BlockPool,
  old: BlockTable,
  length: number,
  begin: number,
  end: number,
  { wholePages = false }: RemovalOptions,
): RemovalPlan {
  const { pageSize } = pool;
  const removed = end - begin;
  const hasRest = removed % pageSize !== 0;
  if (wholePages && hasRest) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `removeRange: ${removed} tokens, expected whole pages of ${pageSize}`,
    );
  }
  const newLength = length - removed;
  const first = Math.floor(begin / pageSize);
  const offset = begin % pageSize;
  // Places of the new table before `kept` are as before; those behind come from `unlinked` places later.
  const kept = first + (offset > 0 ? 1 : 0);
  const unlinked = Math.floor(removed / pageSize);
  const size = Math.ceil(newLength / pageSize);
  const table = new BlockTable();
  const released: number[] = [];
  for (let i = 0; i < size; i++) table.pages.push(old.at(i < kept ? i : i + unlinked));
  for (let i = kept; i < kept + unlinked; i++) released.push(old.at(i));
  for (let i = Math.max(size, kept) + unlinked; i < old.size; i++) released.push(old.at(i));

  const fresh: { place: number; copyOf: number }[] = [];
  let movesBegin = begin; // in the new sequence
  let movesEnd = hasRest ? newLength : begin;
  if (hasRest) {
    for (let i = first; i < size; i++) {
      const page = table.at(i);
      if (pool.isWritable(page)) continue;
      fresh.push({ place: i, copyOf: i < kept ? page : -1 });
      released.push(page);
    }
  } else if (offset > 0) {
    const head = old.at(first);
    const tail = old.at(first + unlinked);
    const pageEnd = Math.min((first + 1) * pageSize, newLength);
    // Into the head's page go the tail's tokens, or into the tail's page the head's.
    const intoHead = pageEnd - begin <= offset;
    const [better, other] = intoHead ? [head, tail] : [tail, head];
    const writable = [better, other].find((page) => pool.isWritable(page));
    const target = writable ?? better;
    [movesBegin, movesEnd] = target === head ? [begin, pageEnd] : [first * pageSize, begin];
    if (wholePages) [movesBegin, movesEnd] = [first * pageSize, pageEnd];
    if (writable === undefined) {
      fresh.push({ place: first, copyOf: wholePages ? -1 : better });
      released.push(head);
    } else if (target === tail) {
      table.pages[first] = tail;
      released[released.indexOf(tail)] = head;
    }
  }
  const indexed = fresh
    .map(({ place }) => table.at(place))
    .filter((page) => pool.isAlone(page) && !pool.isWritable(page));
  const finish = (pages: readonly number[]): Removed => {
    const copies: PageCopy[] = [];
    for (const [i, { place, copyOf }] of fresh.entries()) {
      const to = pages[i] as number;
      table.pages[place] = to;
      if (copyOf >= 0) copies.push({ from: copyOf, to });
    }
    // Tokens before `begin` come from where they stood, the others from behind the range.
    const before = old.slots(pageSize, movesBegin, Math.min(movesEnd, begin));
    const behind = old.slots(pageSize, Math.max(movesBegin, begin) + removed, movesEnd + removed);
    const from = new Int32Array(before.length + behind.length);
    from.set(before);
    from.set(behind, before.length);
    return { copies, from, to: table.slots(pageSize, movesBegin, movesEnd) };
  };
  return { numFresh: fresh.length, indexed, table, released, finish };
}
