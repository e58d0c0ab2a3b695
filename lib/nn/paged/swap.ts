import type { BlockPool } from './block_pool.js';
import type { BlockTable } from './block_table.js';

/** By page of a sequence that is swapped out: its entry in the index then; 0: none. */
export type SwappedPages = Float64Array;

/**
 * Gives back the pages that no other sequence has; where one was, the table says -1 - page.
 *
 * @returns these pages, in order, and what is needed to find those that stay in memory
 */
export function swapOut(pool: BlockPool, table: BlockTable): [Int32Array, SwappedPages] {
  const entries = new Float64Array(table.size);
  const out: number[] = [];
  for (let i = table.size - 1; i >= 0; i--) {
    const page = table.at(i);
    if (!pool.isAlone(page)) continue;
    entries[i] = pool.prefixId(page);
    pool.release(page);
    table.pages[i] = -1 - page;
    out.push(page);
  }
  return [Int32Array.from(out.reverse()), entries];
}

/**
 * Takes pages again; one whose registered content has stayed in memory is taken as it is.
 *
 * @returns by page that {@link swapOut} gave back: where its bytes go, or -1; undefined: the eviction policy ran, look again
 */
export function swapIn(
  pool: BlockPool,
  table: BlockTable,
  entries: SwappedPages,
): Int32Array | undefined {
  const places: number[] = [];
  for (let i = 0; i < table.size; i++) if (table.at(i) < 0) places.push(i);
  const pages = Int32Array.from(places, (place) => {
    const page = -1 - table.at(place);
    return entries[place] !== 0 && pool.prefixId(page) === entries[place] ? page : -1;
  });
  // These are held, so that making room for the others does not take them.
  const kept = pages.filter((page) => page >= 0);
  for (const page of kept) pool.share(page);
  let isReady = false;
  try {
    isReady = pool.ensure(places.length - kept.length, 'swapIn');
  } finally {
    if (!isReady) for (const page of kept) pool.release(page);
  }
  if (!isReady) return undefined;
  return pages.map((page, i) => {
    const taken = page >= 0 ? page : pool.take();
    table.pages[places[i] as number] = taken;
    return page >= 0 ? -1 : taken;
  });
}
