import { checkOptions } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import { tokenIds, wholeNumber } from './checks.js';
import { type PageHash, PageIndex } from './page_index.js';
import { PageList } from './page_list.js';
import { PagedSequence } from './paged_sequence.js';
import { findPages } from './registration.js';

/** What {@link BlockPoolOptions.evict} is told. */
export interface Shortage {
  /** Pages that are needed at once. */
  wanted: number;
  /** Pages that are there: free, or cached and used by no sequence. */
  free: number;
}

/** Size of a {@link BlockPool}. */
export interface BlockPoolOptions {
  numPages: number;
  /** Tokens of a page. */
  pageSize: number;
  /**
   * Called where pages are lacking, before anything is changed: frees sequences (or trims them, or swaps them out), and is
   * called again as long as that gives pages but not yet enough. Without it, or if it gives none: `BL_OUT_OF_MEMORY`.
   */
  evict?: (shortage: Shortage) => void;
  /** Of the index of cached pages. @internal */
  hash?: PageHash;
}

const known = new Set<string>(['numPages', 'pageSize', 'evict', 'hash']);

/** Pages of a {@link BlockPool}; used + cached + free = total. */
export interface BlockPoolStats {
  total: number;
  /** In sequences; a page that several share counts once. */
  used: number;
  /** In no sequence, kept because their content is registered; taken from the oldest on when no page is free. */
  cached: number;
  free: number;
  /** The most that were used at a time. */
  peak: number;
  /** References of sequences to pages; above `used` where pages are shared. */
  references: number;
  /** Sequences that have not been freed. */
  sequences: number;
}

/** A chunk that is cached, taken by reference. */
export interface ChunkMatch {
  /** Its pages; free it when it is no longer needed. */
  readonly sequence: PagedSequence;
  /** By page: where its first token stood when the page was computed. */
  readonly positions: Int32Array;
}

/**
 * Shares a fixed number of pages among sequences: which page of memory holds which tokens. It holds numbers only; the
 * memory is somebody else's ({@link PagedKVCache}).
 *
 * A page belongs to all sequences whose block tables name it (reference counts); it is written to only by a sequence that
 * has it alone, others get a copy first. Full pages can be registered by content, for prefixes that are the same
 * and for chunks that come back at another position. Every operation takes constant time per page.
 *
 * What an operation returns (pages to copy, tokens to move) refers to pages that may have been let go of: do it before
 * the next operation on the pool.
 *
 * @example
 * ```ts
 * const pool = new BlockPool({ numPages: 1024, pageSize: 16 });
 * const a = pool.create();
 * const { slots } = a.append(20); // slots[i] = page * 16 + offset
 * const b = a.fork(); // no pages taken
 * const { copies } = b.append(1); // [{ from, to }]: the page of tokens 16 to 19
 * ```
 */
export class BlockPool {
  readonly numPages: number;
  readonly pageSize: number;
  readonly #references: Int32Array;
  readonly #free: Int32Array; // a stack of #numFree pages
  readonly #cached: PageList;
  readonly #evict: BlockPoolOptions['evict'];
  readonly #hash: PageHash | undefined;
  #index: PageIndex | undefined;
  #numFree: number;
  #peak = 0;
  #total = 0; // references
  #sequences = 0;
  #evicting = false;

  /** @throws `BL_OUT_OF_RANGE` for sizes that can not be; slots are i32, so at most 2^31 - 1 tokens */
  constructor(options: BlockPoolOptions) {
    checkOptions('BlockPool', options, known);
    const { numPages, pageSize, evict, hash } = options;
    this.numPages = wholeNumber('BlockPool', 'numPages', numPages, 1, 2 ** 30);
    this.pageSize = wholeNumber('BlockPool', 'pageSize', pageSize, 1, 2 ** 16);
    wholeNumber('BlockPool', 'numPages * pageSize', numPages * pageSize, 1, 2 ** 31 - 1);
    this.#evict = evict;
    this.#hash = hash;
    this.#references = new Int32Array(numPages);
    this.#cached = new PageList(numPages);
    // Low numbers are taken first.
    this.#free = Int32Array.from({ length: numPages }, (_, i) => numPages - 1 - i);
    this.#numFree = numPages;
  }

  /** A sequence without tokens. */
  create(): PagedSequence {
    return new PagedSequence(this);
  }

  get stats(): BlockPoolStats {
    const cached = this.#cached.size;
    const free = this.#numFree;
    return {
      total: this.numPages,
      used: this.numPages - free - cached,
      cached,
      free,
      peak: this.#peak,
      references: this.#total,
      sequences: this.#sequences,
    };
  }

  /** Sequences that use the page. */
  references(page: number): number {
    return this.#references[
      wholeNumber('references', 'page', page, 0, this.numPages - 1)
    ] as number;
  }

  /**
   * A sequence of the longest registered prefix of `tokens`, in whole pages, taken by reference. A model needs the last
   * token of a prompt computed: leave it out of `tokens`.
   */
  match(tokens: ArrayLike<number>): PagedSequence {
    const ids = tokenIds('match', tokens, this.numPages * this.pageSize);
    const pages = this.#index === undefined ? [] : findPages(this, ids, false);
    const sequence = this.create();
    sequence.addCached(pages);
    return sequence;
  }

  /** The longest beginning of `tokens` that {@link PagedSequence.registerChunk} knows, in whole pages, taken by reference. */
  matchChunk(tokens: ArrayLike<number>): ChunkMatch {
    const ids = tokenIds('matchChunk', tokens, this.numPages * this.pageSize);
    const pages = this.#index === undefined ? [] : findPages(this, ids, true);
    const positions = Int32Array.from(pages, (page) => this.index.position(page));
    const sequence = this.create();
    sequence.addCached(pages, 0);
    return { sequence, positions };
  }

  /** Forgets what is registered; pages in no sequence are free again. */
  clearCached(): void {
    while (this.#cached.size > 0) this.#free[this.#numFree++] = this.#takeCached();
    if (this.#index === undefined) return;
    for (let page = 0; page < this.numPages; page++) this.#index.remove(page);
  }

  // What sequences do with pages. A page number that comes in is one of the pool's.

  /** @internal */
  get index(): PageIndex {
    this.#index ??= new PageIndex(this.numPages, this.pageSize, this.#hash);
    return this.#index;
  }

  /** Number of the page's entry as a prefix; 0: none. @internal */
  prefixId(page: number): number {
    return this.#index?.prefixId(page) ?? 0;
  }

  /** @internal */
  isAvailable(count: number): boolean {
    return count <= this.#numFree + this.#cached.size;
  }

  /**
   * True if `count` pages can be taken. False if the eviction policy has run: the caller looks again at what it
   * needs, as everything may have changed. Otherwise throws.
   *
   * @internal
   */
  ensure(count: number, what: string): boolean {
    if (this.isAvailable(count)) return true;
    const free = this.#numFree + this.#cached.size;
    if (this.#evict !== undefined && !this.#evicting) {
      this.#evicting = true;
      try {
        this.#evict({ wanted: count, free });
      } finally {
        this.#evicting = false;
      }
      if (this.#numFree + this.#cached.size > free) return false;
    }
    throw argumentError(
      'BL_OUT_OF_MEMORY',
      `${what}: ${count} pages wanted, ${free} free (of ${this.numPages})`,
    );
  }

  /** Takes a page; {@link ensure} has said that there is one. @internal */
  take(): number {
    const page = this.#numFree > 0 ? (this.#free[--this.#numFree] as number) : this.#takeCached();
    this.#references[page] = 1;
    this.#total++;
    this.#countUsed();
    return page;
  }

  /** Takes one more reference to a page that is in use or cached. @internal */
  share(page: number): void {
    this.#total++;
    const count = (this.#references[page] as number) + 1;
    this.#references[page] = count;
    if (count > 1) return;
    this.#cached.remove(page);
    this.#countUsed();
  }

  /** Gives a reference back. @internal */
  release(page: number): void {
    this.#total--;
    const count = (this.#references[page] as number) - 1;
    this.#references[page] = count;
    if (count > 0) return;
    if (this.#index?.has(page)) this.#cached.add(page);
    else this.#free[this.#numFree++] = page;
  }

  /** Whether a sequence that has the page may write to it. @internal */
  isWritable(page: number): boolean {
    return this.#references[page] === 1 && !this.#index?.has(page);
  }

  /** Whether a sequence is the only one that has the page. @internal */
  isAlone(page: number): boolean {
    return this.#references[page] === 1;
  }

  /** @internal */
  countSequence(change: 1 | -1): void {
    this.#sequences += change;
  }

  #takeCached(): number {
    const page = this.#cached.first;
    this.#cached.remove(page);
    this.index.remove(page);
    return page;
  }

  #countUsed(): void {
    const used = this.numPages - this.#numFree - this.#cached.size;
    if (used > this.#peak) this.#peak = used;
  }
}
