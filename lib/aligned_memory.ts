import { native } from './native.js';

/** A cache line, and the widest vector. */
const ALIGNMENT = 64;
/** Less than this is a few lines. */
const SMALL = 4096;

/**
 * Zeroed memory that begins at a multiple of 64. What JavaScript allocates lies 16 bytes behind a page's beginning, so
 * that each vector of 64 bytes is in two cache lines: products of few rows whose weights lie in a cache take 6 to 10 % longer.
 *
 * @throws RangeError if there is not as much
 */
export function alignedMemory(bytes: number): Uint8Array<ArrayBuffer> {
  if (bytes < SMALL) return new Uint8Array(bytes);
  const memory = new Uint8Array(bytes + ALIGNMENT - 1);
  const begin = -native.addressInPage(memory) & (ALIGNMENT - 1);
  return memory.subarray(begin, begin + bytes);
}
