import { checkTensor, described } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { KVSegment } from '../../ops/attention/options.js';
import { kvAppend } from '../../ops/kv/kv_append.js';
import { kvGather } from '../../ops/kv/kv_gather.js';
import type { KVPages } from '../../ops/kv/kv_pages.js';
import { isRecording } from '../../run.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import { wholeNumber } from './checks.js';
import type { PagedKVCache } from './paged_kv_cache.js';
import type { PagedKVSequence } from './paged_kv_sequence.js';
import { StepArrays } from './step_arrays.js';

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
  #missing: number; // layers
  readonly #arrays: StepArrays;
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
    this.#missing = cache.numLayers;
    try {
      for (let i = 0; i < sequences.length; i++) {
        (sequences[i] as PagedKVSequence).begin(this, counts[i] as number, keep);
      }
    } catch (error) {
      this.abort();
      throw error;
    }
    const steps = sequences.map((sequence) => sequence.step);
    const arrays = new StepArrays(steps, cache.hasRecent);
    this.tokens = arrays.tokens;
    this.positions = arrays.positions;
    this.cuQueries = arrays.cuQueries;
    this.#arrays = arrays;
    this.#ready = true;
    this.#versions = sequences.map((sequence) => sequence.version);
    // Nothing to write: what is there can be read.
    if (this.tokens === 0 && arrays.leaving === undefined) this.commit();
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
   * @param keyMean [numKvHeads, headDim], taken off k and not added again by `gather`, in place of the cache's `keyMeans`
   */
  append(
    layer: number,
    k: Tensor<FloatDType>,
    v?: Tensor<FloatDType>,
    keyMean?: Tensor<'f32'>,
  ): void {
    const cache = this.#cache;
    const pages = cache.sealedPages(layer);
    this.#check('append');
    if (this.#isWritten[layer] === 1) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `append: layer ${layer} has been given; ${this.#missing} of ${cache.numLayers} layers are missing`,
      );
    }
    this.#checkShape('k', k, cache.headDim);
    if (cache.valueDim > 0 || v !== undefined) this.#checkShape('v', v, cache.valueDim);
    const run = cache.runOptions(layer);
    const own = keyMean === undefined ? run : { ...run, keyMean };
    const { recentSlots, sealedSlots } = this.#arrays;
    if (recentSlots !== undefined) kvAppend(k, v, recentSlots, cache.recentPages(layer), own);
    this.#seal(layer, pages);
    if (sealedSlots !== undefined) kvAppend(k, v, sealedSlots, pages, own);
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
    const sealed: KVSegment = { pages: cache.sealedPages(layer), ...this.#arrays.sealed };
    if (this.#state === 'aborted' || !this.isCurrent) {
      throw argumentError('BL_INVALID_ARGUMENT', 'segments: a sequence has changed since');
    }
    if (this.#state === 'open' && this.#isWritten[layer] === 0) {
      throw argumentError('BL_INVALID_ARGUMENT', `segments: layer ${layer} has not been given`);
    }
    const { recent } = this.#arrays;
    if (recent === undefined) return [sealed];
    return [sealed, { pages: cache.recentPages(layer), ...recent }];
  }

  /**
   * Ends the step; only after recorded operators has this to be called.
   *
   * @throws `BL_INVALID_ARGUMENT` if a layer is missing
   */
  commit(): void {
    if (this.#state === 'done') return;
    this.#check('commit');
    if (this.tokens > 0 && this.#missing > 0) {
      throw argumentError('BL_INVALID_ARGUMENT', `commit: ${this.#missing} layers are missing`);
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
    const { leaving } = this.#arrays;
    if (leaving === undefined) return;
    const run = this.#cache.runOptions(layer);
    const { k, v } = kvGather(leaving.from, this.#cache.recentPages(layer), run);
    kvAppend(k, v, leaving.to, pages, run);
  }

  #written(layer: number): void {
    if (this.#isWritten[layer] === 0) this.#missing--;
    this.#isWritten[layer] = 1;
    if (this.#missing === 0 && !isRecording() && !this.#isHeld) this.commit();
  }

  #checkShape(name: string, tensor: Tensor | undefined, dim: number): void {
    const { numKvHeads } = this.#cache;
    checkTensor('append', name, tensor);
    const { shape } = tensor;
    const [tokens, heads, channels] = shape;
    const fits = tokens === this.tokens && heads === numKvHeads && channels === dim;
    if (fits && shape.length === 3) return;
    throw argumentError(
      'BL_INVALID_SHAPE',
      `append: ${name} is [${shape}], expected [${[this.tokens, numKvHeads, dim]}]`,
    );
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

/** `counts` as one number for each of `sequences`. */
export function checkCounts(
  sequences: readonly PagedKVSequence[],
  counts: number | readonly number[],
): number[] {
  if (typeof counts !== 'number' && !Array.isArray(counts)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `batch: counts is ${described(counts)}, expected a number or an array`,
    );
  }
  const list = typeof counts === 'number' ? sequences.map(() => counts) : [...counts];
  wholeNumber('batch', 'counts.length', list.length, sequences.length, sequences.length);
  for (const [i, count] of list.entries()) {
    wholeNumber('batch', `counts[${i}]`, count, 0, 2 ** 31 - 1);
  }
  return list;
}
