import type { BlockPool } from './block_pool.js';

/** The pages of a sequence, in order. Operations check nothing: {@link PagedSequence} does. */
export class BlockTable {
  /** A plain array: of small integers it is copied faster than an Int32Array, and needs no memory outside the heap. */
  pages: number[];

  constructor(pages: number[] = []) {
    this.pages = pages;
  }

  get size(): number {
    return this.pages.length;
  }

  at(index: number): number {
    return this.pages[index] as number;
  }

  /** The same pages, each with one more reference. */
  share(pool: BlockPool): BlockTable {
    const pages = this.pages.slice();
    for (let i = 0; i < pages.length; i++) pool.share(pages[i] as number);
    return new BlockTable(pages);
  }

  /** Gives back all pages but the first `size`; the last one first: of registered pages, it is then the first to go. */
  trim(pool: BlockPool, size: number): void {
    for (let i = this.size - 1; i >= size; i--) {
      const page = this.pages[i] as number;
      if (page >= 0) pool.release(page);
    }
    if (size < this.size) this.pages.length = size;
  }

  /** Slots of tokens [begin, end). */
  slots(pageSize: number, begin: number, end: number): Int32Array {
    const slots = new Int32Array(end - begin);
    this.writeSlots(slots, 0, pageSize, begin, end);
    return slots;
  }

  /**
   * Writes slots of tokens [begin, end) to `to` from `at` on.
   *
   * @returns where they end
   */
  writeSlots(to: Int32Array, at: number, pageSize: number, begin: number, end: number): number {
    const stop = at + end - begin;
    let page = Math.floor(begin / pageSize);
    let offset = begin - page * pageSize;
    let next = at;
    for (; next < stop; page++, offset = 0) {
      const first = (this.pages[page] as number) * pageSize;
      for (; offset < pageSize && next < stop; offset++) to[next++] = first + offset;
    }
    return next;
  }
}
