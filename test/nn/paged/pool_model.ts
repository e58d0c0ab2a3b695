// A plain model of BlockPool: every sequence is an array of tokens. Beside it, memory as the owner of the pages keeps it: a
// token id and a rotation (the position that the key was turned to) for each slot.
import { expect } from 'vitest';
import { BlockPool, type BlockPoolOptions } from '../../../lib/nn/paged/block_pool.js';
import type { PageCopy, PageReposition } from '../../../lib/nn/paged/changes.js';
import type { PagedSequence } from '../../../lib/nn/paged/paged_sequence.js';

export interface Token {
  readonly id: number;
  readonly rotation: number;
}

interface Entry {
  tokens: Token[];
  /** Bytes of the pages that are swapped out, in order. */
  host: Token[][] | undefined;
}

export class PoolModel {
  readonly pool: BlockPool;
  readonly entries = new Map<PagedSequence, Entry>();
  readonly #memory: Token[];
  #chunk: PagedSequence | undefined;

  constructor(options: BlockPoolOptions) {
    this.pool = new BlockPool(options);
    const empty: Token = { id: -1, rotation: -1 };
    this.#memory = new Array<Token>(this.pool.numPages * this.pool.pageSize).fill(empty);
  }

  create(): PagedSequence {
    return this.#add(this.pool.create(), []);
  }

  append(sequence: PagedSequence, ids: readonly number[]): void {
    const { slots, copies } = sequence.append(ids.length);
    this.#copy(copies);
    const { tokens } = this.entry(sequence);
    for (const [i, id] of ids.entries()) {
      const token = { id, rotation: tokens.length };
      this.#memory[slots[i] as number] = token;
      tokens.push(token);
    }
  }

  fork(sequence: PagedSequence): void {
    this.#add(sequence.fork(), [...this.entry(sequence).tokens]);
  }

  trim(sequence: PagedSequence, length: number): void {
    sequence.trim(length);
    this.entry(sequence).tokens.length = length;
  }

  /** Moves one token after the other, as a caller with little memory would; whole pages at once, as formats want it. */
  removeRange(sequence: PagedSequence, begin: number, end: number, wholePages: boolean): void {
    const { copies, from, to } = sequence.removeRange(begin, end, { wholePages });
    this.#copy(copies);
    expect(from.length).toBe(to.length);
    if (wholePages && to.length > 0) {
      const { pageSize } = this.pool;
      const values = Array.from(from, (slot) => this.#memory[slot] as Token);
      to.forEach((slot, i) => {
        expect(slot).toBe((to[0] as number) + i);
        this.#memory[slot] = values[i] as Token;
      });
      expect((to[0] as number) % pageSize).toBe(0);
    } else {
      from.forEach((slot, i) => {
        this.#memory[to[i] as number] = this.#memory[slot] as Token;
      });
    }
    this.entry(sequence).tokens.splice(begin, end - begin);
  }

  free(sequence: PagedSequence): void {
    sequence.free();
    this.entries.delete(sequence);
  }

  register(sequence: PagedSequence): void {
    sequence.register(this.entry(sequence).tokens.map(({ id }) => id));
  }

  /** What is found is a prefix of what was asked for. */
  match(ids: readonly number[]): PagedSequence {
    const sequence = this.pool.match(ids);
    expect(sequence.length).toBeLessThanOrEqual(ids.length);
    const tokens = ids.slice(0, sequence.length).map((id, rotation) => ({ id, rotation }));
    return this.#add(sequence, tokens);
  }

  /** From `begin` on as far as positions follow one another. */
  registerChunk(sequence: PagedSequence, begin: number): void {
    const { tokens } = this.entry(sequence);
    const rotation = tokens[begin]?.rotation ?? 0;
    const rest = tokens.slice(begin);
    const end = rest.findIndex((token, i) => token.rotation !== rotation + i);
    const chunk = end < 0 ? rest : rest.slice(0, end);
    sequence.registerChunk(
      begin,
      chunk.map(({ id }) => id),
      rotation,
    );
  }

  /** Appends what is cached of a chunk, at the sequence's end. */
  appendChunk(sequence: PagedSequence, ids: readonly number[]): number {
    const chunk = this.pool.matchChunk(ids);
    this.#chunk = chunk.sequence;
    try {
      const begin = sequence.length;
      this.#copy(sequence.appendChunk(chunk));
      const found = ids.slice(0, chunk.sequence.length);
      const { tokens } = this.entry(sequence);
      for (const [i, id] of found.entries()) tokens.push({ id, rotation: begin + i });
      return found.length;
    } finally {
      chunk.sequence.free();
      this.#chunk = undefined;
    }
  }

  swapOut(sequence: PagedSequence): void {
    const pages = sequence.swapOut();
    this.entry(sequence).host = Array.from(pages, (page) => this.#page(page).slice());
  }

  swapIn(sequence: PagedSequence): void {
    const entry = this.entry(sequence);
    const pages = sequence.swapIn();
    expect(pages.length).toBe(entry.host?.length);
    pages.forEach((page, i) => {
      if (page >= 0) this.#setPage(page, entry.host?.[i] as Token[]);
    });
    entry.host = undefined;
  }

  entry(sequence: PagedSequence): Entry {
    return this.entries.get(sequence) as Entry;
  }

  /** Every sequence reads its tokens back through its table, and the pool's counts are those of the tables. */
  check(): void {
    const { pool } = this;
    const counts = new Int32Array(pool.numPages);
    for (const [sequence, { tokens, host }] of this.entries) {
      const { length, numPages, swapped } = sequence;
      expect([length, numPages, swapped]).toEqual([
        tokens.length,
        Math.ceil(tokens.length / pool.pageSize),
        host !== undefined,
      ]);
      if (host !== undefined) continue;
      const stored = Array.from(sequence.slots(), (slot) => this.#memory[slot] as Token);
      if (stored.some((token, i) => !same(token, tokens[i] as Token))) {
        expect(stored).toEqual(tokens); // says where
      }
      for (const page of sequence.blockTable()) (counts[page] as number)++;
    }
    // Swapped sequences and chunks that are held have pages that no table shows.
    const isHidden = this.#chunk !== undefined || [...this.entries.keys()].some((s) => s.swapped);
    const stats = pool.stats;
    expect(stats.used + stats.cached + stats.free).toBe(pool.numPages);
    expect(stats.peak).toBeGreaterThanOrEqual(stats.used);
    if (isHidden) return;
    expect(stats.sequences).toBe(this.entries.size);
    expect(stats.used).toBe(counts.filter((count) => count > 0).length);
    expect(stats.references).toBe(counts.reduce((sum, count) => sum + count, 0));
    for (let page = 0; page < pool.numPages; page++) {
      if (pool.references(page) !== counts[page]) expect(pool.references(page)).toBe(counts[page]);
    }
  }

  /** Frees everything: no page is left behind. */
  finish(): void {
    for (const sequence of [...this.entries.keys()]) this.free(sequence);
    this.check();
    expect(this.pool.stats.used).toBe(0);
    expect(this.pool.stats.references).toBe(0);
    this.pool.clearCached();
    expect(this.pool.stats.free).toBe(this.pool.numPages);
  }

  #add(sequence: PagedSequence, tokens: Token[]): PagedSequence {
    this.entries.set(sequence, { tokens, host: undefined });
    return sequence;
  }

  #page(page: number): Token[] {
    const { pageSize } = this.pool;
    return this.#memory.slice(page * pageSize, (page + 1) * pageSize);
  }

  #setPage(page: number, tokens: readonly Token[]): void {
    for (const [i, token] of tokens.entries()) this.#memory[page * this.pool.pageSize + i] = token;
  }

  #copy(copies: readonly (PageCopy | PageReposition)[]): void {
    for (const copy of copies) {
      const delta = 'delta' in copy ? copy.delta : 0;
      const turned = this.#page(copy.from).map(({ id, rotation }) => ({
        id,
        rotation: rotation + delta,
      }));
      this.#setPage(copy.to, turned);
    }
  }
}

const same = (a: Token, b: Token): boolean => a.id === b.id && a.rotation === b.rotation;
