import { argumentError } from '../errors.js';

/**
 * Bytes that a reader may look at: a memory mapping, or bytes in memory.
 *
 * `bytes` gives a view without a copy; the view is valid until `dispose`. Readers ask for small windows while they
 * parse and for one tensor at a time afterwards, so a file larger than memory is fine.
 */
export interface ByteSource {
  /** Total length in bytes. */
  readonly size: number;
  /** View of `length` bytes from `offset`; throws `BL_OUT_OF_RANGE` when they are not all inside. */
  bytes(offset: number, length: number): Uint8Array;
  /** Lets go of the bytes; views given earlier must not be used afterwards. */
  dispose(): void;
}

/**
 * A source over bytes in memory. No copy is made: changes to `data` show through.
 *
 * @example
 * const file = readGGUF(memorySource(ggufBytes({ tensors: [] })));
 */
export function memorySource(data: Uint8Array): ByteSource {
  let held: Uint8Array | undefined = data;
  return {
    size: data.byteLength,
    bytes(offset, length) {
      if (held === undefined)
        throw argumentError('BL_INVALID_ARGUMENT', 'memorySource: already disposed');
      const ok =
        Number.isSafeInteger(offset) &&
        Number.isSafeInteger(length) &&
        offset >= 0 &&
        length >= 0 &&
        offset + length <= held.byteLength;
      if (!ok) {
        throw argumentError(
          'BL_OUT_OF_RANGE',
          `memorySource: bytes(${offset}, ${length}) is outside the ${held.byteLength} bytes of the source`,
        );
      }
      return held.subarray(offset, offset + length);
    },
    dispose() {
      held = undefined;
    },
  };
}
