// Changes of a sequence that move tokens: their keys and values are decoded, turned if need be, and written again.
import { kvAppend } from '../../ops/kv/kv_append.js';
import { type KVTokens, kvGather } from '../../ops/kv/kv_gather.js';
import { KVPages } from '../../ops/kv/kv_pages.js';
import { Tensor } from '../../tensor.js';
import type { ChunkMatch } from './block_pool.js';
import type { PageReposition, Removed } from './changes.js';
import type { PageMemory } from './page_memory.js';
import { PagedKVBatch } from './paged_kv_batch.js';
import type { PagedKVCache } from './paged_kv_cache.js';
import { PagedKVSequence } from './paged_kv_sequence.js';
import type { PagedSequence } from './paged_sequence.js';
import { turnKeys } from './turn_keys.js';

/** The two stretches of a sequence. */
export interface KVParts {
  readonly sealed: PagedSequence;
  readonly recent: PagedSequence | undefined;
}

/** Tokens in one of the two kinds of pages. */
export interface Piece {
  readonly pages: 'sealed' | 'recent';
  readonly slots: Int32Array;
}

/** Tokens that are moved at a time: 8 MB of f32 keys and values for 8 heads of 128. */
const tokensAtOnce = 1024;

const vector = (data: Int32Array): Tensor<'i32'> => new Tensor('i32', data, [data.length]);

/** Where tokens [begin, end) are; no step is under way. */
export function piecesOf({ sealed, recent }: KVParts, begin: number, end: number): Piece[] {
  const border = sealed.length;
  const pieces: Piece[] = [];
  if (begin < Math.min(end, border)) {
    pieces.push({ pages: 'sealed', slots: sealed.slots(begin, Math.min(end, border)) });
  }
  if (recent !== undefined && end > border) {
    const slots = recent.slots(Math.max(begin - border, 0), end - border);
    if (slots.length > 0) pieces.push({ pages: 'recent', slots });
  }
  return pieces;
}

/** Keys and values of pieces one behind the other. */
export function readTokens(
  cache: PagedKVCache,
  layer: number,
  pieces: readonly Piece[],
): KVTokens<'f32'> {
  const { numKvHeads, headDim, valueDim } = cache;
  const count = pieces.reduce((sum, { slots }) => sum + slots.length, 0);
  cache.sealedPages(layer); // checks the layer, also if there is nothing to read
  const k = Tensor.zeros('f32', [count, numKvHeads, headDim]);
  const v = valueDim === 0 ? undefined : Tensor.zeros('f32', [count, numKvHeads, valueDim]);
  let at = 0;
  for (const { pages, slots } of pieces) {
    const from = pages === 'sealed' ? cache.sealedPages(layer) : cache.recentPages(layer);
    const end = at + slots.length;
    kvGather(vector(slots), from, {
      ...cache.runOptions(layer),
      k: k.slice(at, end),
      ...(v === undefined ? {} : { v: v.slice(at, end) }),
    });
    at = end;
  }
  return { k, v };
}

/** Does what `PagedSequence.removeRange` asks for, in all layers. */
export function applyRemoval(
  cache: PagedKVCache,
  memory: PageMemory,
  { copies, from, to }: Removed,
): void {
  memory.copy(copies);
  for (const [layer, pages] of memory.layers.entries()) {
    const run = cache.runOptions(layer);
    for (let begin = 0; begin < from.length; begin += tokensAtOnce) {
      const end = begin + tokensAtOnce;
      const { k, v } = kvGather(vector(from.slice(begin, end)), pages, run);
      kvAppend(k, v, vector(to.slice(begin, end)), pages, run);
      k.dispose();
      v?.dispose();
    }
  }
}

function forkParts({ sealed, recent }: KVParts): KVParts {
  return { sealed: sealed.fork(), recent: recent?.fork() };
}

function freeParts({ sealed, recent }: KVParts): void {
  sealed.free();
  recent?.free();
}

/**
 * Changes a fork and lets go of the old parts once that has worked; until then all tokens are where they were.
 *
 * @returns the new parts
 */
function replace(parts: KVParts, change: (fork: KVParts) => void): KVParts {
  const fork = forkParts(parts);
  try {
    change(fork);
  } catch (error) {
    freeParts(fork);
    throw error;
  }
  freeParts(parts);
  return fork;
}

/** Appends tokens that `read` gives layer by layer, keys turned by `deltas`. */
function appendRead(
  cache: PagedKVCache,
  { sealed, recent }: KVParts,
  deltas: Int32Array,
  read: (layer: number) => KVTokens<'f32'>,
): void {
  if (deltas.length === 0) return;
  const isTurned = deltas.some((delta) => delta !== 0);
  const batch = new PagedKVBatch(
    cache,
    [new PagedKVSequence(cache, sealed, recent)],
    [deltas.length],
  );
  try {
    for (let layer = 0; layer < cache.numLayers; layer++) {
      const { k, v } = read(layer);
      if (isTurned) turnKeys(k, deltas, cache.rope('turn', layer));
      batch.append(layer, k, v);
      k.dispose();
      v?.dispose();
    }
  } finally {
    batch.abort(); // nothing if it is done
  }
}

/** Keeps tokens before `keep` and, behind them, those from `from` on, with keys turned by `delta`. */
export function rebuild(
  cache: PagedKVCache,
  parts: KVParts,
  keep: number,
  from: number,
  delta: number,
): KVParts {
  const border = parts.sealed.length;
  const length = border + (parts.recent?.length ?? 0);
  // Sealed pages are whole: what is kept of one that is cut is appended again as well.
  const isCut = parts.recent !== undefined && keep < border;
  const begin = isCut ? keep - (keep % cache.pageSize) : keep;
  const pieces = [...piecesOf(parts, begin, keep), ...piecesOf(parts, from, length)];
  const deltas = new Int32Array(keep - begin + length - from).fill(delta, keep - begin);
  const intact = parts.sealed.prefixLength;
  return replace(parts, (fork) => {
    fork.sealed.trim(Math.min(begin, border));
    fork.recent?.trim(Math.max(begin - border, 0));
    appendRead(cache, fork, deltas, (layer) => readTokens(cache, layer, pieces));
    if (from < length || intact < keep) fork.sealed.limitPrefix(Math.min(intact, keep));
  });
}

/** Appends a cached chunk so that its first token stands at `position`. */
export function addChunk(
  cache: PagedKVCache,
  parts: KVParts,
  chunk: ChunkMatch,
  position: number,
): KVParts {
  const { pageSize } = cache;
  const deltas = Int32Array.from(
    { length: chunk.sequence.length },
    (_, i) =>
      position + i - ((chunk.positions[Math.floor(i / pageSize)] as number) + (i % pageSize)),
  );
  if (deltas.some((delta) => delta !== 0)) cache.rope('appendChunk', 0);
  const isWhole = parts.sealed.length % pageSize === 0 && (parts.recent?.length ?? 0) === 0;
  if (isWhole) {
    const moves = parts.sealed.appendChunk(chunk, position);
    cache.sealedMemory.copy(moves);
    turnPages(cache, moves);
    return parts;
  }
  const length = parts.sealed.length + (parts.recent?.length ?? 0);
  const pieces: Piece[] = [{ pages: 'sealed', slots: chunk.sequence.slots() }];
  return replace(parts, (fork) => {
    appendRead(cache, fork, deltas, (layer) => readTokens(cache, layer, pieces));
    fork.sealed.limitPrefix(length);
  });
}

/** Turns the keys of whole pages; values stay. */
function turnPages(cache: PagedKVCache, moves: readonly PageReposition[]): void {
  const { pageSize } = cache;
  for (const [layer, pages] of moves.length === 0 ? [] : cache.sealedMemory.layers.entries()) {
    const run = cache.runOptions(layer);
    const { keyFormat, numKvHeads, keyDim, numPages, keys } = pages;
    const onlyKeys = new KVPages({
      keyFormat,
      pageSize,
      numKvHeads,
      keyDim,
      valueDim: 0,
      numPages,
      keys,
    });
    const step = Math.max(1, Math.floor(tokensAtOnce / pageSize));
    for (let i = 0; i < moves.length; i += step) {
      const some = moves.slice(i, i + step);
      const slots = vector(
        Int32Array.from(
          some.flatMap(({ to }) => Array.from({ length: pageSize }, (_, t) => to * pageSize + t)),
        ),
      );
      const deltas = Int32Array.from(some.flatMap(({ delta }) => new Array(pageSize).fill(delta)));
      const { k } = kvGather(slots, onlyKeys, run);
      turnKeys(k, deltas, cache.rope('turn', layer));
      kvAppend(k, undefined, slots, onlyKeys, run);
      k.dispose();
    }
  }
}
