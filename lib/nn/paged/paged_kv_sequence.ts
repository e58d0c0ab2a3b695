import { checkOptions, checkTensor } from '../../arguments.js';
import { argumentError } from '../../errors.js';
import type { KVSegment } from '../../ops/attention/options.js';
import type { KVTokens } from '../../ops/kv/kv_gather.js';
import type { FloatDType, Tensor } from '../../tensor.js';
import { tokenIds, wholeNumber } from './checks.js';
import { addChunk, applyRemoval, type KVParts, piecesOf, readTokens, rebuild } from './kv_edit.js';
import { directStep, type KVStep, recentStep } from './kv_step.js';
import { SwappedParts } from './kv_swap.js';
import type { PageMemory } from './page_memory.js';
import { PagedKVBatch } from './paged_kv_batch.js';
import type { PagedKVCache } from './paged_kv_cache.js';
import type { PagedSequence } from './paged_sequence.js';

/** Options of {@link PagedKVSequence.removeRange}. */
export interface KVRemovalOptions {
  /** Turn the keys behind the range to where they then stand (the cache's option `rope`). Default: they stay as they are. */
  reposition?: boolean;
}

const removalOptions = new Set<string>(['reposition'] satisfies (keyof KVRemovalOptions)[]);

/**
 * One sequence of a {@link PagedKVCache}. Methods throw `BL_DETACHED` after `free()` and after the cache's `dispose()`,
 * `BL_INVALID_ARGUMENT` while it is swapped out or a batch is writing it, `BL_OUT_OF_RANGE` for tokens that it does not have, and
 * `BL_OUT_OF_MEMORY` where pages are lacking, before anything is changed.
 */
export class PagedKVSequence {
  readonly #cache: PagedKVCache;
  #parts: KVParts;
  #step: KVStep | undefined;
  #batch: PagedKVBatch | undefined;
  /** A batch of this sequence alone: of {@link append}, and of {@link segments}. */
  #own: PagedKVBatch | undefined;
  #swapped: SwappedParts | undefined;
  #isLocked = false;
  #version = 0;

  /** @internal */
  constructor(cache: PagedKVCache, sealed: PagedSequence, recent: PagedSequence | undefined) {
    this.#cache = cache;
    this.#parts = { sealed, recent };
  }

  get cache(): PagedKVCache {
    return this.#cache;
  }

  /** Tokens, those of a running step included. */
  get length(): number {
    const { sealed, recent } = this.#parts;
    return sealed.length + (recent?.length ?? 0) - (this.#step?.leaving ?? 0);
  }

  /** Tokens in sealed pages. */
  get sealedLength(): number {
    return this.#parts.sealed.length;
  }

  get freed(): boolean {
    return this.#parts.sealed.freed;
  }

  get swapped(): boolean {
    return this.#swapped !== undefined;
  }

  /**
   * Adds tokens to one layer; every layer is given the same number, once, before the next tokens come. For several sequences at
   * a time: `cache.batch()`.
   *
   * @param k [tokens, numKvHeads, headDim], f32, f16 or bf16, rotated
   * @param v [tokens, numKvHeads, valueDim]; undefined where valueDim is 0
   */
  append(layer: number, k: Tensor<FloatDType>, v?: Tensor<FloatDType>): void {
    const isNew = this.#own === undefined || this.#own.done;
    if (isNew) {
      this.#check('append');
      const { headDim, numKvHeads } = this.#cache;
      checkTensor('append', 'k', k);
      if (k.rank !== 3) {
        throw argumentError(
          'BL_INVALID_SHAPE',
          `append: k is [${k.shape}], expected [tokens, ${numKvHeads}, ${headDim}]`,
        );
      }
      this.#own = this.#cache.batch([this], k.shape[0] as number);
    }
    const batch = this.#own as PagedKVBatch;
    try {
      if (batch.tokens > 0) batch.append(layer, k, v);
    } catch (error) {
      if (isNew) this.abort();
      throw error;
    }
  }

  /** Takes back the tokens of an {@link append} that has not come to all layers. */
  abort(): void {
    this.#own?.abort();
    this.#own = undefined;
  }

  /** What attention reads of a layer: sealed pages, and recent ones where the cache has them. */
  segments(layer: number): KVSegment[] {
    if (this.#batch !== undefined && this.#batch !== this.#own) this.#check('segments');
    if (!this.#own?.isCurrent) {
      this.#check('segments');
      this.#own = this.#cache.batch([this]);
    }
    return this.#own.segments(layer);
  }

  /** Keys and values of tokens [begin, end) of a layer, decoded. */
  gather(
    layer: number,
    begin = 0,
    end = this.length,
  ): { k: Tensor<'f32'>; v: Tensor<'f32'> | undefined } {
    this.#cache.checkNotRecording('gather');
    return this.read(layer, begin, end);
  }

  /** {@link gather}, also recorded: then the values are there once that has run. @internal */
  read(layer: number, begin = 0, end = this.length): KVTokens<'f32'> {
    this.#check('gather');
    this.#checkRange('gather', begin, end);
    return readTokens(this.#cache, layer, piecesOf(this.#parts, begin, end));
  }

  /** Another sequence with the same tokens; all pages are shared until one of the two writes. */
  fork(): PagedKVSequence {
    this.#check('fork');
    const { sealed, recent } = this.#parts;
    return new PagedKVSequence(this.#cache, sealed.fork(), recent?.fork());
  }

  /** Forgets all tokens but the first `length`. Where that cuts a page of i4 or i2 keys, its tokens become recent ones. */
  trim(length: number): void {
    this.#check('trim');
    wholeNumber('trim', 'length', length, 0, this.length);
    const { sealed, recent } = this.#parts;
    if (length >= sealed.length && recent !== undefined) {
      recent.trim(length - sealed.length);
    } else if (recent === undefined || length % this.#cache.pageSize === 0) {
      sealed.trim(length);
      recent?.trim(0);
    } else {
      this.#edit('trim', () => rebuild(this.#cache, this.#parts, length, this.length, 0));
    }
    this.#version++;
  }

  /**
   * Forgets tokens [begin, end). Whole pages are unlinked; where tokens come to stand at other places of their pages, they are
   * decoded and written again, which for quantized formats may round once more.
   */
  removeRange(begin: number, end: number, options: KVRemovalOptions = {}): void {
    this.#check('removeRange');
    checkOptions('removeRange', options, removalOptions);
    this.#checkRange('removeRange', begin, end);
    if (begin === end) return;
    if (end === this.length) {
      this.trim(begin);
      return;
    }
    this.#edit('removeRange', () => this.#remove(begin, end, options.reposition === true));
    this.#version++;
  }

  /** Seals all pages that are full, recent tokens or not, so that they can be registered. */
  seal(): void {
    this.#check('seal');
    this.#cache.checkNotRecording('seal');
    if (this.#parts.recent !== undefined) new PagedKVBatch(this.#cache, [this], [0], 0).seal();
  }

  /**
   * Makes sealed pages known by the tokens in them and before them, so that `cache.match()` finds them, also after
   * `free()` until memory is short. Tokens behind a removed range are left out.
   *
   * @param tokens ids of its tokens, from the first on
   * @returns tokens that can be found
   */
  register(tokens: ArrayLike<number>): number {
    this.#check('register');
    const ids = tokenIds('register', tokens, this.length + 1);
    wholeNumber('register', 'tokens.length', ids.length, 0, this.length);
    const { sealed } = this.#parts;
    const pages = sealed.register(ids.subarray(0, sealed.length));
    this.#version++;
    return pages * this.#cache.pageSize;
  }

  /**
   * Makes sealed pages from token `begin` on, the begin of a page, known by their own tokens alone, so that
   * {@link appendChunk} finds them: for tokens computed without sight of those before (Block-Attention).
   *
   * @param tokens ids of the chunk's tokens
   * @param position where its first token stood when its key was rotated
   * @returns tokens that can be found
   */
  registerChunk(begin: number, tokens: ArrayLike<number>, position = begin): number {
    this.#check('registerChunk');
    const { sealed } = this.#parts;
    wholeNumber('registerChunk', 'begin', begin, 0, this.length);
    const ids = tokenIds('registerChunk', tokens, this.length + 1);
    wholeNumber('registerChunk', 'tokens.length', ids.length, 0, this.length - begin);
    if (begin >= sealed.length) return 0;
    const chunk = ids.subarray(0, sealed.length - begin);
    return sealed.registerChunk(begin, chunk, position) * this.#cache.pageSize;
  }

  /**
   * Adds the longest registered beginning of a chunk, in whole pages, its first token to stand at `position`: at the end of a
   * page by reference or as copies, else token by token. Keys that stood elsewhere are turned (the cache's option `rope`).
   *
   * @returns tokens added
   */
  appendChunk(tokens: ArrayLike<number>, position = this.length): number {
    this.#check('appendChunk');
    wholeNumber('appendChunk', 'position', position, 0, 2 ** 31 - 1);
    const chunk = this.#cache.sealedPool.matchChunk(tokens);
    try {
      if (chunk.sequence.length > 0) {
        this.#edit('appendChunk', () => addChunk(this.#cache, this.#parts, chunk, position));
        this.#version++;
      }
      return chunk.sequence.length;
    } finally {
      chunk.sequence.free();
    }
  }

  /** Copies the pages that it has alone to memory of their own and gives them back. */
  swapOut(): void {
    this.#check('swapOut');
    this.#cache.checkNotRecording('swapOut');
    this.#swapped = new SwappedParts(this.#cache, this.#parts);
    this.#version++;
  }

  /** Undoes {@link swapOut}: takes pages again and copies the bytes back. */
  swapIn(): void {
    this.#cache.check('swapIn');
    this.#cache.checkNotRecording('swapIn');
    if (this.#swapped === undefined) {
      this.#check('swapIn');
      throw argumentError('BL_INVALID_ARGUMENT', 'swapIn: the sequence is not swapped out');
    }
    const swapped = this.#swapped;
    this.#locked(() => swapped.restore());
    this.#swapped = undefined;
  }

  /** Gives its pages back. It can not be used any more, nor be freed again. */
  free(): void {
    const { sealed, recent } = this.#parts;
    const isNeeded = this.#isLocked || (this.#batch !== undefined && !this.#batch.ready);
    if (isNeeded && !sealed.freed) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        'PagedKVSequence: free of the sequence that pages are being made room for',
      );
    }
    sealed.free();
    recent?.free();
    this.#swapped?.drop();
    this.#swapped = undefined;
    this.#step = undefined;
    this.#batch = undefined;
    this.#version++;
  }

  /** {@link free}, for `using`; nothing if that has been done. */
  [Symbol.dispose](): void {
    if (!this.freed) this.free();
  }

  // What a batch does.

  /** Changes when what attention reads does. @internal */
  get version(): number {
    return this.#version;
  }

  /** Takes pages for `count` tokens; the last `keep` are not sealed. @internal */
  begin(batch: PagedKVBatch, count: number, keep = this.#cache.recent): void {
    this.#check('batch');
    const { sealed, recent } = this.#parts;
    this.#batch = batch;
    try {
      const { copy } = this.#cache;
      this.#step =
        recent === undefined
          ? directStep(sealed, count, copy)
          : recentStep(sealed, recent, count, keep, copy);
    } catch (error) {
      this.#batch = undefined;
      throw error;
    }
    if (count > 0 || this.#step.leaving > 0) this.#version++;
  }

  /** @internal */
  get step(): KVStep {
    return this.#step as KVStep;
  }

  /** @internal */
  commit(batch: PagedKVBatch): void {
    if (this.#batch !== batch) return;
    const { leaving } = this.step;
    if (leaving > 0) this.#parts.recent?.removeRange(0, leaving);
    this.#step = undefined;
    this.#batch = undefined;
  }

  /** @internal */
  rollBack(batch: PagedKVBatch): void {
    if (this.#batch !== batch) return;
    const { sealedBefore, recentBefore } = this.step;
    this.#parts.sealed.trim(sealedBefore);
    this.#parts.recent?.trim(recentBefore);
    this.#step = undefined;
    this.#batch = undefined;
    this.#version++;
  }

  /** Without tokens [begin, end), end < length. */
  #remove(begin: number, end: number, reposition: boolean): KVParts {
    const cache = this.#cache;
    const { sealed, recent } = this.#parts;
    const count = end - begin;
    if (reposition) {
      cache.rope('removeRange', 0);
      return rebuild(cache, this.#parts, begin, end, -count);
    }
    if (recent === undefined) {
      applyRemoval(cache, cache.sealedMemory, sealed.removeRange(begin, end));
      return this.#parts;
    }
    if (begin >= sealed.length) {
      const removed = recent.removeRange(begin - sealed.length, end - sealed.length);
      applyRemoval(cache, cache.recentMemory as PageMemory, removed);
      sealed.limitPrefix(begin);
      return this.#parts;
    }
    // Pages are whole before and behind, and at most one is joined of two.
    const isPages =
      count % cache.pageSize === 0 &&
      (end < sealed.length || (end === sealed.length && begin % cache.pageSize === 0));
    if (!isPages) return rebuild(cache, this.#parts, begin, end, 0);
    const removed = sealed.removeRange(begin, end, { wholePages: true });
    applyRemoval(cache, cache.sealedMemory, removed);
    sealed.limitPrefix(begin);
    return this.#parts;
  }

  /** Replaces the parts; meanwhile the eviction policy must leave the sequence. */
  #edit(what: string, change: () => KVParts): void {
    this.#cache.checkNotRecording(what);
    this.#locked(() => {
      this.#parts = change();
    });
  }

  #locked(body: () => void): void {
    this.#isLocked = true;
    try {
      body();
    } finally {
      this.#isLocked = false;
    }
  }

  #check(what: string): void {
    this.#cache.check(what);
    if (this.freed) throw argumentError('BL_DETACHED', `PagedKVSequence: ${what} after free()`);
    if (this.#swapped !== undefined) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `PagedKVSequence: ${what} while it is swapped out; call swapIn() first`,
      );
    }
    if (this.#batch !== undefined || this.#isLocked) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `PagedKVSequence: ${what} while a step is under way; give it all layers, or abort()`,
      );
    }
  }

  #checkRange(what: string, begin: number, end: number): void {
    wholeNumber(what, 'begin', begin, 0, this.length);
    wholeNumber(what, 'end', end, begin, this.length);
  }
}
