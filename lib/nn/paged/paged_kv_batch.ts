import { argumentError } from '../../errors.js';
import type { KVSegment } from '../../ops/attention/options.js';
import { kvAppend } from '../../ops/kv/kv_append.js';
import { kvGather } from '../../ops/kv/kv_gather.js';
import type { KVPages } from '../../ops/kv/kv_pages.js';
import { isRecording } from '../../run.js';
import { type FloatDType, Tensor } from '../../tensor.js';
import { wholeNumber } from './checks.js';
import type { KVStep } from './kv_step.js';
import type { PagedKVCache } from './paged_kv_cache.js';
import type { PagedKVSequence } from './paged_kv_sequence.js';

/** Block tables and lengths of one of the two kinds of pages. */
type Tables = Pick<KVSegment, 'blockTable' | 'lengths'>;

/**
 * New tokens of several sequences on their way through the layers: pages are taken when it is made, each layer gives its
 * keys and values, and with the last one the step is done. Made by `cache.batch()`.
 *
 * @example
 * ```ts
 * const batch = cache.batch([a, b], [3, 1]); // 4 tokens
 * for (let layer = 0; layer < cache.numLayers; layer++) {
 *   batch.append(layer, k, v); // [4, numKvHeads, headDim]
 *   const mixed = decodeAttention(q, batch.segments(layer), { cuQueries: batch.cuQueries });
 * }
 * ```
 */
export class PagedKVBatch {
  /** New tokens of all sequences together. */
  readonly tokens: number;
  /** Shape `[tokens]`: where each new token stands in its sequence. */
  readonly positions: Tensor<'i32'>;
  /** Shape `[sequences + 1]`: sequence i has new tokens [cu[i], cu[i + 1]). */
  readonly cuQueries: Tensor<'i32'>;
  readonly #cache: PagedKVCache;
  readonly #sequences: readonly PagedKVSequence[];
  readonly #versions: number[];
  readonly #isWritten: Uint8Array; // by layer
  readonly #recentSlots: Tensor<'i32'> | undefined;
  readonly #sealedSlots: Tensor<'i32'> | undefined;
  readonly #sealFrom: Tensor<'i32'> | undefined;
  readonly #sealTo: Tensor<'i32'> | undefined;
  readonly #sealed: Tables;
  readonly #recent: Tables | undefined;
  #state: 'open' | 'done' | 'aborted' = 'open';
  #ready = false;
  #isHeld = false;

  /** @internal */
  constructor(
    cache: PagedKVCache,
    sequences: readonly PagedKVSequence[],
    counts: readonly number[],
    keep?: number,
  ) {
    this.#cache = cache;
    this.#sequences = [...sequences];
    this.#isWritten = new Uint8Array(cache.numLayers);
    const starts = sequences.map((sequence) => sequence.length);
    try {
      for (const [i, sequence] of sequences.entries()) {
        sequence.begin(this, counts[i] as number, keep);
      }
    } catch (error) {
      this.abort();
      throw error;
    }
    const steps: KVStep[] = sequences.map((sequence) => sequence.step);
    this.tokens = steps.reduce((sum, { count }) => sum + count, 0);
    const cu = new Int32Array(sequences.length + 1);
    const positions = new Int32Array(this.tokens);
    let token = 0;
    for (const [i, { count }] of steps.entries()) {
      const start = starts[i] as number;
      for (let t = 0; t < count; t++) positions[token++] = start + t;
      cu[i + 1] = token;
    }
    this.positions = vector(positions);
    this.cuQueries = vector(cu);
    this.#recentSlots = cache.hasRecent ? joined(steps.map((s) => s.recentSlots)) : undefined;
    this.#sealedSlots = joined(steps.map((s) => s.sealedSlots));
    this.#sealFrom = joined(steps.map((s) => s.sealFrom));
    this.#sealTo = joined(steps.map((s) => s.sealTo));
    const views = sequences.map((sequence) => sequence.view());
    this.#sealed = tables(views.map(({ sealed }) => sealed));
    this.#recent = cache.hasRecent ? tables(views.map(({ recent }) => recent)) : undefined;
    this.#ready = true;
    this.#versions = sequences.map((sequence) => sequence.version);
    // Nothing to write: what is there can be read.
    if (this.tokens === 0 && this.#sealFrom === undefined) this.commit();
  }

  /** Whether all sequences have their pages. @internal */
  get ready(): boolean {
    return this.#ready;
  }

  /** Whether no sequence has changed since. @internal */
  get isCurrent(): boolean {
    return this.#sequences.every(({ version }, i) => version === this.#versions[i]);
  }

  /** Whether all layers have been written. */
  get done(): boolean {
    return this.#state === 'done';
  }

  /**
   * Writes keys and values of a layer, once for each layer; seals pages that have left the recent tokens. With the last layer
   * the step is done, unless operators are being recorded (`sequence()`): then call {@link commit} once they have run.
   *
   * @param k [tokens, numKvHeads, headDim] f32, f16 or bf16: the sequences' tokens side by side
   * @param v [tokens, numKvHeads, valueDim]; undefined where valueDim is 0
   */
  append(layer: number, k: Tensor<FloatDType>, v?: Tensor<FloatDType>): void {
    const cache = this.#cache;
    const pages = cache.sealedPages(layer);
    this.#check('append');
    if (this.#isWritten[layer] === 1) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `append: layer ${layer} has been given; ${this.#missing()} of ${cache.numLayers} layers are missing`,
      );
    }
    const expected = (dim: number): string => [this.tokens, cache.numKvHeads, dim].join();
    for (const [name, tensor, dim] of [
      ['k', k, cache.headDim],
      ['v', v, cache.valueDim],
    ] as const) {
      if ((dim === 0 && tensor === undefined) || tensor?.shape.join() === expected(dim)) continue;
      throw argumentError(
        'BL_INVALID_SHAPE',
        `append: ${name} is [${tensor?.shape ?? ''}], expected [${expected(dim)}]`,
      );
    }
    const run = cache.runOptions(layer);
    const write = (slots: Tensor<'i32'> | undefined, to: KVPages): void => {
      if (slots !== undefined) kvAppend(k, v, slots, to, run);
    };
    if (this.#recentSlots !== undefined) write(this.#recentSlots, cache.recentPages(layer));
    this.#seal(layer, pages);
    write(this.#sealedSlots, pages);
    this.#written(layer);
  }

  /** Leaves the step open until it is committed or aborted. @internal */
  hold(): this {
    this.#isHeld = true;
    return this;
  }

  /** Seals without new tokens. @internal */
  seal(): void {
    for (let layer = 0; layer < this.#cache.numLayers && this.#state === 'open'; layer++) {
      this.#seal(layer, this.#cache.sealedPages(layer));
      this.#written(layer);
    }
  }

  /**
   * What attention reads in a layer that has been written: sealed pages, and recent ones where the cache has them.
   *
   * @throws `BL_INVALID_ARGUMENT` once one of the sequences has changed
   */
  segments(layer: number): KVSegment[] {
    const cache = this.#cache;
    const sealed: KVSegment = { pages: cache.sealedPages(layer), ...this.#sealed };
    if (this.#state === 'aborted' || !this.isCurrent) {
      throw argumentError('BL_INVALID_ARGUMENT', 'segments: a sequence has changed since');
    }
    if (this.#state === 'open' && this.#isWritten[layer] === 0) {
      throw argumentError('BL_INVALID_ARGUMENT', `segments: layer ${layer} has not been given`);
    }
    if (this.#recent === undefined) return [sealed];
    return [sealed, { pages: cache.recentPages(layer), ...this.#recent }];
  }

  /**
   * Ends the step; only after recorded operators has this to be called.
   *
   * @throws `BL_INVALID_ARGUMENT` if a layer is missing
   */
  commit(): void {
    if (this.#state === 'done') return;
    this.#check('commit');
    if (this.tokens > 0 && this.#missing() > 0) {
      throw argumentError('BL_INVALID_ARGUMENT', `commit: ${this.#missing()} layers are missing`);
    }
    this.#state = 'done';
    for (const sequence of this.#sequences) sequence.commit(this);
  }

  /** Takes the new tokens back, as far as layers have been written. Nothing if the step is done. */
  abort(): void {
    if (this.#state !== 'open') return;
    this.#state = 'aborted';
    for (const sequence of this.#sequences) sequence.rollBack(this);
  }

  #seal(layer: number, pages: KVPages): void {
    if (this.#sealFrom === undefined || this.#sealTo === undefined) return;
    const run = this.#cache.runOptions(layer);
    const { k, v } = kvGather(this.#sealFrom, this.#cache.recentPages(layer), run);
    kvAppend(k, v, this.#sealTo, pages, run);
  }

  #written(layer: number): void {
    this.#isWritten[layer] = 1;
    if (this.#missing() === 0 && !isRecording() && !this.#isHeld) this.commit();
  }

  #missing(): number {
    return this.#isWritten.length - this.#isWritten.reduce((sum, one) => sum + one, 0);
  }

  #check(what: string): void {
    if (this.#state !== 'open') {
      throw argumentError('BL_INVALID_ARGUMENT', `${what}: the step is ${this.#state}`);
    }
    if (this.#sequences.some(({ freed }) => freed)) {
      throw argumentError('BL_DETACHED', `${what}: a sequence of the batch has been freed`);
    }
  }
}

const vector = (data: Int32Array): Tensor<'i32'> => new Tensor('i32', data, [data.length]);

/** Undefined if there is no slot in them. */
function joined(lists: readonly (Int32Array | undefined)[]): Tensor<'i32'> | undefined {
  const slots = new Int32Array(lists.reduce((sum, list) => sum + (list?.length ?? 0), 0));
  let at = 0;
  for (const list of lists) {
    slots.set(list ?? [], at);
    at += list?.length ?? 0;
  }
  return slots.some((slot) => slot >= 0) ? vector(slots) : undefined;
}

/** Pages of a sequence that are read, and tokens in them. */
export interface PagesOfSequence {
  readonly pages: Int32Array;
  readonly length: number;
}

function tables(views: readonly PagesOfSequence[]): Tables {
  const width = views.reduce((most, { pages }) => Math.max(most, pages.length), 1);
  const table = new Int32Array(views.length * width);
  for (const [i, { pages }] of views.entries()) table.set(pages, i * width);
  return {
    blockTable: new Tensor('i32', table, [views.length, width]),
    lengths: vector(Int32Array.from(views, ({ length }) => length)),
  };
}

/** `counts` as one number for each of `sequences`. */
export function checkCounts(
  sequences: readonly PagedKVSequence[],
  counts: number | readonly number[],
): number[] {
  const list = typeof counts === 'number' ? sequences.map(() => counts) : [...counts];
  wholeNumber('batch', 'counts.length', list.length, sequences.length, sequences.length);
  for (const [i, count] of list.entries()) {
    wholeNumber('batch', `counts[${i}]`, count, 0, 2 ** 31 - 1);
  }
  return list;
}
