import { described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { KVFormat } from '../../generated.js';
import type { KVAppendOptions } from '../../ops/kv/kv_append.js';
import { KVPages } from '../../ops/kv/kv_pages.js';
import { isRecording } from '../../run.js';
import { BlockPool, type BlockPoolStats } from './block_pool.js';
import {
  type CachePlan,
  type PagedKVCacheOptions,
  planCache,
  type RopeSetting,
} from './kv_options.js';
import type { Copy } from './kv_step.js';
import { PageMemory } from './page_memory.js';
import { checkCounts, PagedKVBatch } from './paged_kv_batch.js';
import { PagedKVSequence } from './paged_kv_sequence.js';

/** What a {@link PagedKVCache} holds. */
export interface PagedKVCacheStats {
  /** Pages of tokens that are quantized (or written once, in a cache without recent tokens). */
  sealed: BlockPoolStats;
  /** Pages of recent tokens. */
  recent: BlockPoolStats | undefined;
  /** Memory of all pages. */
  bytes: number;
  /** Memory of the pages in sequences. */
  usedBytes: number;
  /** Memory of sequences that are swapped out. */
  swappedBytes: number;
}

/**
 * Keys and values of many sequences in pages of one memory, quantized as they come. Sequences share pages (forks, equal
 * prefixes) until one of them writes; attention reads the pages where they lie (`decodeAttention`).
 *
 * With `recent`, and for i4 and i2 keys, a sequence is whole quantized pages ('sealed') and then recent tokens in full
 * precision: two segments for attention.
 *
 * Sequences are to be freed; the memory goes with {@link dispose}.
 *
 * @example
 * ```ts
 * const cache = new PagedKVCache({ numLayers: 2, numKvHeads: 8, headDim: 128, format: 'i8', budgetBytes: 2 ** 28 });
 * const a = cache.create();
 * for (let layer = 0; layer < 2; layer++) {
 *   a.append(layer, k, v); // [tokens, 8, 128]
 *   const mixed = decodeAttention(q, a.segments(layer));
 * }
 * const b = a.fork(); // shares all pages
 * ```
 */
export class PagedKVCache {
  readonly #plan: CachePlan;
  readonly #options: PagedKVCacheOptions;
  /** @internal */
  readonly sealedPool: BlockPool;
  /** @internal */
  readonly recentPool: BlockPool | undefined;
  /** @internal */
  readonly sealedMemory: PageMemory;
  /** @internal */
  readonly recentMemory: PageMemory | undefined;
  #swappedBytes = 0;
  #disposed = false;

  /**
   * @throws `BL_INVALID_SHAPE`, `BL_OUT_OF_RANGE`, `BL_INVALID_FORMAT`, `BL_INVALID_ARGUMENT`; `BL_OUT_OF_MEMORY` for a budget
   *   that has no room for a page, or memory that is not there
   */
  constructor(options: PagedKVCacheOptions) {
    const plan = planCache(options);
    this.#plan = plan;
    this.#options = { ...options };
    const { evict } = options;
    const { pageSize, numPages, numRecentPages } = plan;
    const pool = (pages: 'sealed' | 'recent', count: number): BlockPool =>
      new BlockPool({
        numPages: count,
        pageSize,
        ...(evict === undefined ? {} : { evict: (shortage) => evict({ ...shortage, pages }) }),
      });
    this.sealedPool = pool('sealed', numPages);
    this.sealedMemory = this.#memory(numPages, plan.keyFormat, plan.valueFormat);
    if (numRecentPages > 0) {
      this.recentPool = pool('recent', numRecentPages);
      this.recentMemory = this.#memory(numRecentPages, plan.recentFormat, plan.recentFormat);
    }
  }

  get numLayers(): number {
    return this.#plan.numLayers;
  }

  get numKvHeads(): number {
    return this.#plan.numKvHeads;
  }

  get headDim(): number {
    return this.#plan.headDim;
  }

  /** 0: there are no values. */
  get valueDim(): number {
    return this.#plan.valueDim;
  }

  get pageSize(): number {
    return this.#plan.pageSize;
  }

  /** Sealed pages. */
  get numPages(): number {
    return this.#plan.numPages;
  }

  get format(): { keys: KVFormat; values: KVFormat } {
    return { keys: this.#plan.keyFormat, values: this.#plan.valueFormat };
  }

  /** Tokens that each sequence keeps in full precision. */
  get recent(): number {
    return this.#plan.recent;
  }

  /** Whether sequences have recent tokens in pages of their own. */
  get hasRecent(): boolean {
    return this.recentPool !== undefined;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  get stats(): PagedKVCacheStats {
    const sealed = this.sealedPool.stats;
    const recent = this.recentPool?.stats;
    const { sealedMemory, recentMemory } = this;
    return {
      sealed,
      recent,
      bytes: sealedMemory.bytes + (recentMemory?.bytes ?? 0),
      usedBytes:
        sealed.used * sealedMemory.pageBytes + (recent?.used ?? 0) * (recentMemory?.pageBytes ?? 0),
      swappedBytes: this.#swappedBytes,
    };
  }

  /** A sequence without tokens. */
  create(): PagedKVSequence {
    this.check('create');
    return new PagedKVSequence(this, this.sealedPool.create(), this.recentPool?.create());
  }

  /**
   * A sequence that begins with the longest registered prefix of `tokens`, in whole pages, taken by reference; its `length`
   * says how many tokens need not be computed. A model needs the last token of a prompt computed: leave it out.
   */
  match(tokens: ArrayLike<number>): PagedKVSequence {
    this.check('match');
    return new PagedKVSequence(this, this.sealedPool.match(tokens), this.recentPool?.create());
  }

  /**
   * Takes pages for new tokens of several sequences, equally many or `counts[i]` of sequence i; with 0 they are only read.
   *
   * @throws `BL_OUT_OF_MEMORY` where pages are lacking, before any sequence has changed; `BL_INVALID_ARGUMENT` for a sequence of
   *   another cache, or one that another batch is writing
   */
  batch(
    sequences: readonly PagedKVSequence[],
    counts: number | readonly number[] = 0,
  ): PagedKVBatch {
    this.check('batch');
    if (!Array.isArray(sequences)) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `batch: sequences is ${described(sequences)}, expected an array`,
      );
    }
    for (const [i, sequence] of sequences.entries()) {
      if (sequence instanceof PagedKVSequence && sequence.cache === this) continue;
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `batch: sequences[${i}] is not a sequence of this cache`,
      );
    }
    const list = checkCounts(sequences, counts);
    if (list.some((count) => count > 0)) this.checkNotRecording('batch');
    return new PagedKVBatch(this, sequences, list);
  }

  /** Forgets registered pages that are in no sequence. */
  clearCached(): void {
    this.check('clearCached');
    this.sealedPool.clearCached();
  }

  /** Lets go of the memory; sequences can not be used any more. */
  dispose(): void {
    this.#disposed = true;
    this.sealedMemory.dispose();
    this.recentMemory?.dispose();
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Pages of one layer. @internal */
  sealedPages(layer: number): KVPages {
    return this.#layer(this.sealedMemory, layer);
  }

  /** @internal */
  recentPages(layer: number): KVPages {
    return this.#layer(this.recentMemory as PageMemory, layer);
  }

  /** Options of kvAppend and kvGather. @internal */
  runOptions(layer: number): KVAppendOptions {
    const { isa, threads, keyMeans } = this.#options;
    const keyMean = keyMeans?.[layer];
    return {
      ...(isa === undefined ? {} : { isa }),
      ...(threads === undefined ? {} : { threads }),
      ...(keyMean === undefined ? {} : { keyMean }),
    };
  }

  /** How the keys of a layer are rotated. @internal */
  rope(what: string, layer: number): RopeSetting {
    const { rope } = this.#options;
    if (rope === undefined) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `${what}: keys are to be turned; give the cache the option rope`,
      );
    }
    return typeof rope === 'function' ? rope(layer) : rope;
  }

  /** Copies pages at once. @internal */
  readonly copy: Copy = (pages, copies) => {
    (pages === 'sealed' ? this.sealedMemory : this.recentMemory)?.copy(copies);
  };

  /** @internal */
  countSwapped(bytes: number): void {
    this.#swappedBytes += bytes;
  }

  /** @internal */
  check(what: string): void {
    if (this.#disposed) throw argumentError('BL_DETACHED', `PagedKVCache: ${what} after dispose()`);
  }

  /** Refuses what moves bytes at once while operators are only being recorded. @internal */
  checkNotRecording(what: string): void {
    if (!isRecording()) return;
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `PagedKVCache: ${what} in the body of sequence(); do it before`,
    );
  }

  #layer(memory: PageMemory, layer: number): KVPages {
    this.check('layer');
    const pages = Number.isInteger(layer) ? memory.layers[layer] : undefined;
    if (pages !== undefined) return pages;
    throw argumentError(
      'BL_OUT_OF_RANGE',
      `PagedKVCache: layer is ${described(layer)}, expected 0 to ${this.numLayers - 1}`,
    );
  }

  #memory(numPages: number, keyFormat: KVFormat, valueFormat: KVFormat): PageMemory {
    const { numLayers, numKvHeads, headDim, valueDim, pageSize } = this.#plan;
    const layers: KVPages[] = [];
    try {
      for (let layer = 0; layer < numLayers; layer++) {
        layers.push(
          new KVPages({
            keyFormat,
            valueFormat,
            pageSize,
            numKvHeads,
            keyDim: headDim,
            valueDim,
            numPages,
          }),
        );
      }
    } catch (error) {
      for (const pages of layers) pages.dispose();
      throw error;
    }
    return new PageMemory(layers);
  }
}
