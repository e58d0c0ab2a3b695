import { argumentError } from '../../errors.js';
import type { BlockPool, ChunkMatch } from './block_pool.js';
import type { BlockTable } from './block_table.js';
import { chunkRoot, prefixRoot } from './page_index.js';
import { PagedSequence } from './paged_sequence.js';

/** Enters the first `count` pages as a prefix; where the index has a page of the same content, the table gets that one. */
export function registerPrefix(
  pool: BlockPool,
  table: BlockTable,
  ids: Int32Array,
  count: number,
): void {
  const { index, pageSize } = pool;
  let parent = prefixRoot;
  for (let i = 0; i < count; i++) {
    const page = table.at(i);
    const known = index.find(parent, ids, i * pageSize, false);
    if (known < 0) {
      parent = index.add(parent, page, ids, i * pageSize);
      continue;
    }
    parent = index.prefixId(known);
    if (known === page) continue;
    pool.share(known);
    pool.release(page);
    table.pages[i] = known;
  }
}

/**
 * Enters pages from place `first` on as a chunk, whose first token stood at `position`; ends at a page that is of another
 * chunk.
 *
 * @returns pages of the chunk that the index has
 */
export function registerChunkPages(
  pool: BlockPool,
  table: BlockTable,
  first: number,
  ids: Int32Array,
  position: number,
): number {
  const { index, pageSize } = pool;
  const count = Math.floor(ids.length / pageSize);
  let parent = chunkRoot;
  for (let i = 0; i < count; i++) {
    const begin = i * pageSize;
    const known = index.find(parent, ids, begin, true);
    const page = known >= 0 ? known : table.at(first + i);
    if (known < 0) {
      if (index.chunkId(page) !== 0) return i;
      index.add(parent, page, ids, begin, position + begin);
    }
    parent = index.chunkId(page);
  }
  return count;
}

/** Pages of the longest beginning of `ids` that the index has. */
export function findPages(pool: BlockPool, ids: Int32Array, asChunk: boolean): number[] {
  const { index, pageSize } = pool;
  const pages: number[] = [];
  let parent = asChunk ? chunkRoot : prefixRoot;
  for (let begin = 0; begin + pageSize <= ids.length; begin += pageSize) {
    const page = index.find(parent, ids, begin, asChunk);
    if (page < 0) break;
    pages.push(page);
    parent = asChunk ? index.chunkId(page) : index.prefixId(page);
  }
  return pages;
}

/** Pages of a chunk and how far each is to be turned for the chunk to begin at `position`. */
export function chunkDeltas(
  pool: BlockPool,
  { sequence, positions }: ChunkMatch,
  position: number,
): { pages: Int32Array; deltas: number[] } {
  if (!(sequence instanceof PagedSequence) || sequence.pool !== pool) {
    throw argumentError('BL_INVALID_ARGUMENT', 'appendChunk: the chunk is of another pool');
  }
  const { pageSize } = pool;
  const pages = sequence.blockTable();
  if (sequence.length !== pages.length * pageSize || positions.length !== pages.length) {
    throw argumentError('BL_INVALID_ARGUMENT', 'appendChunk: the chunk has been changed');
  }
  const deltas = Array.from(positions, (at, i) => position + i * pageSize - at);
  return { pages, deltas };
}
