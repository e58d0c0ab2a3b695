import type { KVParts } from './kv_edit.js';
import type { PageMemory } from './page_memory.js';
import type { PagedKVCache } from './paged_kv_cache.js';
import type { PagedSequence } from './paged_sequence.js';

/** The pages of a sequence that are swapped out, with their bytes by place in the block table. */
class SwappedPages {
  readonly #bytes = new Map<number, Uint8Array>();
  /** In the order in which `swapIn()` tells about them. */
  #places: number[] = [];

  constructor(
    readonly sequence: PagedSequence,
    readonly memory: PageMemory,
  ) {}

  get size(): number {
    return this.#bytes.size * this.memory.pageBytes;
  }

  /** Keeps the bytes of a page unless they are here already. */
  swapOut(): void {
    const table = this.sequence.blockTable();
    const pages = this.sequence.swapOut();
    this.#places = [];
    for (const [place, page] of table.entries()) {
      if (page !== pages[this.#places.length]) continue;
      this.#places.push(place);
      if (!this.#bytes.has(place)) this.#bytes.set(place, this.memory.save(page));
    }
  }

  /** Takes pages; the result writes the bytes. */
  swapIn(): () => void {
    const pages = this.sequence.swapIn();
    return () => {
      for (const [i, place] of this.#places.entries()) {
        const page = pages[i] as number;
        if (page >= 0) this.memory.restore(page, this.#bytes.get(place) as Uint8Array);
      }
    };
  }
}

/** A sequence of a {@link PagedKVCache} that is swapped out. */
export class SwappedParts {
  readonly #cache: PagedKVCache;
  readonly #sealed: SwappedPages;
  readonly #recent: SwappedPages | undefined;
  #counted = 0;

  /** Swaps out. */
  constructor(cache: PagedKVCache, { sealed, recent }: KVParts) {
    this.#cache = cache;
    this.#sealed = new SwappedPages(sealed, cache.sealedMemory);
    this.#sealed.swapOut();
    if (recent !== undefined && cache.recentMemory !== undefined) {
      this.#recent = new SwappedPages(recent, cache.recentMemory);
      this.#recent.swapOut();
    }
    this.#count();
  }

  /** Swaps in, or leaves everything as it is where pages are lacking. */
  restore(): void {
    const writeSealed = this.#sealed.swapIn();
    let writeRecent: (() => void) | undefined;
    try {
      writeRecent = this.#recent?.swapIn();
    } catch (error) {
      this.#sealed.swapOut();
      this.#count();
      throw error;
    }
    writeSealed();
    writeRecent?.();
    this.drop();
  }

  /** Lets go of the bytes. */
  drop(): void {
    this.#cache.countSwapped(-this.#counted);
    this.#counted = 0;
  }

  #count(): void {
    const bytes = this.#sealed.size + (this.#recent?.size ?? 0);
    this.#cache.countSwapped(bytes - this.#counted);
    this.#counted = bytes;
  }
}
