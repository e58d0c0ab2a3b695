import { argumentError } from '../../errors.js';

/** Of `count` tokens from `begin` on, behind a parent: any function of these; equality is checked on the tokens. */
export type PageHash = (
  parent: number,
  tokens: ArrayLike<number>,
  begin: number,
  count: number,
) => number;

/** Parents of the first page of a text, and of the first page of a chunk that may stand anywhere. */
export const prefixRoot = -1;
export const chunkRoot = -2;

/**
 * Full pages by content: a page is found by the tokens in it and the entry of the page before it (its parent).
 *
 * A page has up to two entries, one as part of a prefix and one as part of a chunk. Entries have numbers that are never
 * used again, so that a page whose parent is gone can not be found behind another one. A page counts as found
 * only if parent and tokens are equal: hashes that collide cost time, not correctness.
 */
export class PageIndex {
  readonly #numPages: number;
  readonly #pageSize: number;
  readonly #hash: PageHash;
  // By entry: page as prefix, numPages + page as chunk.
  readonly #ids: Float64Array; // 0: no entry
  readonly #parents: Float64Array;
  readonly #hashes: Int32Array;
  /** By page. */
  readonly #tokens: Int32Array;
  /** By page, of its chunk entry: the position of its first token when it was computed. */
  readonly #positions: Int32Array;
  // Open addressing with linear probing, at most half full: entry + 1, or 0.
  readonly #table: Int32Array;
  readonly #mask: number;
  #lastId = 0;

  constructor(numPages: number, pageSize: number, hash: PageHash = hashPage) {
    this.#numPages = numPages;
    this.#pageSize = pageSize;
    this.#hash = hash;
    this.#ids = new Float64Array(2 * numPages);
    this.#parents = new Float64Array(2 * numPages);
    this.#hashes = new Int32Array(2 * numPages);
    this.#tokens = new Int32Array(numPages * pageSize);
    this.#positions = new Int32Array(numPages);
    const size = 2 ** Math.ceil(Math.log2(4 * numPages));
    this.#table = new Int32Array(size);
    this.#mask = size - 1;
  }

  has(page: number): boolean {
    return this.#ids[page] !== 0 || this.#ids[this.#numPages + page] !== 0;
  }

  /** Number of the page's entry as a prefix; 0: it has none. */
  prefixId(page: number): number {
    return this.#ids[page] as number;
  }

  /** Number of the page's entry as part of a chunk; 0: it has none. */
  chunkId(page: number): number {
    return this.#ids[this.#numPages + page] as number;
  }

  /** Where the first token of a page of a chunk stood when it was computed. */
  position(page: number): number {
    return this.#positions[page] as number;
  }

  /** The page with a page of tokens from `begin` on behind `parent` (a root or an id); -1: there is none. */
  find(parent: number, tokens: ArrayLike<number>, begin: number, asChunk: boolean): number {
    let at = this.#hash(parent, tokens, begin, this.#pageSize) & this.#mask;
    for (; this.#table[at] !== 0; at = (at + 1) & this.#mask) {
      const entry = (this.#table[at] as number) - 1;
      if (this.#parents[entry] !== parent || entry >= this.#numPages !== asChunk) continue;
      const page = asChunk ? entry - this.#numPages : entry;
      if (this.#equal(page, tokens, begin)) return page;
    }
    return -1;
  }

  /**
   * Adds an entry for a page; one of its kind that it has is replaced.
   *
   * @returns its id
   * @throws `BL_INVALID_ARGUMENT` if the page is known with other tokens
   */
  add(
    parent: number,
    page: number,
    tokens: ArrayLike<number>,
    begin: number,
    position?: number,
  ): number {
    if (this.has(page) && !this.#equal(page, tokens, begin)) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `register: tokens differ from those that page ${page} was registered with`,
      );
    }
    const entry = position === undefined ? page : this.#numPages + page;
    if (this.#ids[entry] !== 0) this.#removeEntry(entry);
    const first = page * this.#pageSize;
    for (let i = 0; i < this.#pageSize; i++) this.#tokens[first + i] = tokens[begin + i] as number;
    if (position !== undefined) this.#positions[page] = position;
    const id = ++this.#lastId;
    this.#ids[entry] = id;
    this.#parents[entry] = parent;
    const hash = this.#hash(parent, tokens, begin, this.#pageSize) | 0;
    this.#hashes[entry] = hash;
    let at = hash & this.#mask;
    while (this.#table[at] !== 0) at = (at + 1) & this.#mask;
    this.#table[at] = entry + 1;
    return id;
  }

  /** Takes out the page's entries. */
  remove(page: number): void {
    if (this.#ids[page] !== 0) this.#removeEntry(page);
    if (this.#ids[this.#numPages + page] !== 0) this.#removeEntry(this.#numPages + page);
  }

  #removeEntry(entry: number): void {
    const mask = this.#mask;
    const table = this.#table;
    this.#ids[entry] = 0;
    let at = (this.#hashes[entry] as number) & mask;
    while (table[at] !== entry + 1) at = (at + 1) & mask;
    // Entries behind that may stand here move up, so that probing never meets a gap (Knuth 6.4, algorithm R).
    for (let next = (at + 1) & mask; table[next] !== 0; next = (next + 1) & mask) {
      const home = (this.#hashes[(table[next] as number) - 1] as number) & mask;
      if (((next - home) & mask) < ((next - at) & mask)) continue;
      table[at] = table[next] as number;
      at = next;
    }
    table[at] = 0;
  }

  #equal(page: number, tokens: ArrayLike<number>, begin: number): boolean {
    const first = page * this.#pageSize;
    for (let i = 0; i < this.#pageSize; i++) {
      if (this.#tokens[first + i] !== tokens[begin + i]) return false;
    }
    return true;
  }
}

/** FNV-1a over words, finished as MurmurHash3 does, so that the low bits depend on all. */
export function hashPage(
  parent: number,
  tokens: ArrayLike<number>,
  begin: number,
  count: number,
): number {
  let hash = 0x811c9dc5 ^ (parent | 0);
  hash = Math.imul(hash, 0x01000193) ^ Math.floor(parent / 2 ** 32);
  for (let i = begin; i < begin + count; i++) {
    hash = Math.imul(hash ^ (tokens[i] as number), 0x01000193);
    hash ^= hash >>> 15;
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
