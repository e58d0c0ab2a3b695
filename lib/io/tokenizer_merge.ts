/**
 * How gladly two neighbours, `text[start, middle)` and `text[middle, end)`, become one symbol: larger is sooner.
 * `undefined` where they never do.
 */
export type Priority = (start: number, middle: number, end: number) => number | undefined;

// Buffers above this many symbols are given back after use: one long prompt should not cost memory for ever.
const KEEP_SYMBOLS = 2 ** 16;

/**
 * Joins neighbouring symbols of a text, best pair first, until no pair may be joined: the core of SentencePiece's BPE
 * and of byte-level BPE, which differ only in the {@link Priority}. Of equal pairs the leftmost is joined first.
 *
 * Symbols form a linked list over typed arrays; candidate pairs wait in a binary heap. Joining n symbols puts at most
 * 3 (n - 1) pairs into the heap (n - 1 at the start, two for each join), so the work is O(n log n) for any text.
 */
export class Merger {
  #capacity = 0;
  // Symbols, [n]: where each begins, how long it is (0: swallowed by its left neighbour), and its neighbours (-1: none).
  #start = new Int32Array(0);
  #length = new Int32Array(0);
  #previous = new Int32Array(0);
  #next = new Int32Array(0);
  // Pairs in the heap, [3 n]. `size` is the joint length when the pair was found; if it differs now, the pair is stale.
  #priority = new Float64Array(0);
  #left = new Int32Array(0);
  #right = new Int32Array(0);
  #size = new Int32Array(0);
  #pairs = 0;

  /**
   * @param text Split into code points first.
   * @param emit Called for each final symbol `text[start, end)`, from left to right.
   */
  merge(text: string, priority: Priority, emit: (start: number, end: number) => void): void {
    const count = this.#split(text);
    this.#pairs = 0;
    for (let i = 1; i < count; i++) this.#offer(i - 1, i, priority);
    while (this.#pairs > 0) this.#joinBest(priority);
    for (let i = count > 0 ? 0 : -1; i >= 0; i = this.#next[i] as number) {
      const start = this.#start[i] as number;
      emit(start, start + (this.#length[i] as number));
    }
    if (this.#capacity > KEEP_SYMBOLS) this.#resize(0);
  }

  #split(text: string): number {
    if (text.length > this.#capacity) this.#resize(Math.max(64, text.length));
    let count = 0;
    for (let at = 0; at < text.length; count++) {
      const width = (text.codePointAt(at) as number) > 0xffff ? 2 : 1;
      this.#start[count] = at;
      this.#length[count] = width;
      this.#previous[count] = count - 1;
      this.#next[count] = count + 1;
      at += width;
    }
    if (count > 0) this.#next[count - 1] = -1;
    return count;
  }

  #resize(capacity: number): void {
    this.#capacity = capacity;
    this.#start = new Int32Array(capacity);
    this.#length = new Int32Array(capacity);
    this.#previous = new Int32Array(capacity);
    this.#next = new Int32Array(capacity);
    this.#priority = new Float64Array(3 * capacity);
    this.#left = new Int32Array(3 * capacity);
    this.#right = new Int32Array(3 * capacity);
    this.#size = new Int32Array(3 * capacity);
  }

  #offer(left: number, right: number, priority: Priority): void {
    const start = this.#start[left] as number;
    const middle = this.#start[right] as number;
    const end = middle + (this.#length[right] as number);
    const value = priority(start, middle, end);
    if (value !== undefined) this.#push(value, left, right, end - start);
  }

  #joinBest(priority: Priority): void {
    const left = this.#left[0] as number;
    const right = this.#right[0] as number;
    const size = this.#size[0] as number;
    this.#pop();
    const leftLength = this.#length[left] as number;
    const rightLength = this.#length[right] as number;
    if (leftLength === 0 || rightLength === 0 || leftLength + rightLength !== size) return;
    this.#length[left] = size;
    this.#length[right] = 0;
    const next = this.#next[right] as number;
    this.#next[left] = next;
    const previous = this.#previous[left] as number;
    if (previous >= 0) this.#offer(previous, left, priority);
    if (next >= 0) {
      this.#previous[next] = left;
      this.#offer(left, next, priority);
    }
  }

  /** Whether pair `i` leaves the heap before a pair of this priority and left symbol. */
  #before(i: number, value: number, left: number): boolean {
    const other = this.#priority[i] as number;
    return other > value || (other === value && (this.#left[i] as number) < left);
  }

  #push(value: number, left: number, right: number, size: number): void {
    let hole = this.#pairs++;
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (this.#before(parent, value, left)) break;
      this.#move(parent, hole);
      hole = parent;
    }
    this.#put(hole, value, left, right, size);
  }

  #pop(): void {
    const last = --this.#pairs;
    const value = this.#priority[last] as number;
    const left = this.#left[last] as number;
    let hole = 0;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= last) break;
      if (child + 1 < last) {
        const rightFirst = this.#before(
          child + 1,
          this.#priority[child] as number,
          this.#left[child] as number,
        );
        if (rightFirst) child++;
      }
      if (!this.#before(child, value, left)) break;
      this.#move(child, hole);
      hole = child;
    }
    this.#put(hole, value, left, this.#right[last] as number, this.#size[last] as number);
  }

  #move(from: number, to: number): void {
    this.#put(
      to,
      this.#priority[from] as number,
      this.#left[from] as number,
      this.#right[from] as number,
      this.#size[from] as number,
    );
  }

  #put(at: number, value: number, left: number, right: number, size: number): void {
    this.#priority[at] = value;
    this.#left[at] = left;
    this.#right[at] = right;
    this.#size[at] = size;
  }
}
