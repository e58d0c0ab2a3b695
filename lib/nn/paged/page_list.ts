/** Pages in the order in which they were added: a doubly linked list over page numbers, every operation O(1). */
export class PageList {
  // The head stands behind the pages: entry numPages.
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #head: number;
  #size = 0;

  constructor(numPages: number) {
    this.#head = numPages;
    this.#next = new Int32Array(numPages + 1);
    this.#previous = new Int32Array(numPages + 1);
    this.#next[numPages] = numPages;
    this.#previous[numPages] = numPages;
  }

  get size(): number {
    return this.#size;
  }

  /** The page that was added first; the list must not be empty. */
  get first(): number {
    return this.#next[this.#head] as number;
  }

  /** Adds a page that is not in the list, as the last one. */
  add(page: number): void {
    const last = this.#previous[this.#head] as number;
    this.#next[last] = page;
    this.#previous[page] = last;
    this.#next[page] = this.#head;
    this.#previous[this.#head] = page;
    this.#size++;
  }

  /** Takes out a page that is in the list. */
  remove(page: number): void {
    const next = this.#next[page] as number;
    const previous = this.#previous[page] as number;
    this.#next[previous] = next;
    this.#previous[next] = previous;
    this.#size--;
  }
}
