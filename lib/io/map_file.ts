import { native } from '../native.js';
import type { ByteSource } from './source.js';

// V8 of Node 20 has typed arrays of up to 2^32 bytes; files below this are one buffer, of which readers take views.
const MAX_WHOLE = 2 ** 31;

/**
 * A source over a memory-mapped file: nothing is read before it is used, and what is read is the page cache's own copy.
 * If the file shrinks while it is mapped, operators that read the lost part fail with `BL_FILE_CHANGED`; the
 * process goes on.
 *
 * @throws `BL_NOT_FOUND`, `BL_INVALID_FILE` or `BL_INVALID_ARGUMENT` if there is no such regular file
 *
 * @example
 * const source = mapFile('model.gguf');
 * const file = readGGUF(source);
 */
export function mapFile(path: string): ByteSource {
  const mapping = native.mapFile(path);
  const buffers: ArrayBuffer[] = [];
  const view = (offset: number, length: number): ArrayBuffer => {
    const buffer = mapping.view(offset, length);
    buffers.push(buffer);
    return buffer;
  };
  const whole = mapping.size <= MAX_WHOLE ? view(0, mapping.size) : undefined;
  return {
    size: mapping.size,
    bytes(offset, length) {
      const inside =
        whole !== undefined && offset >= 0 && length >= 0 && offset + length <= mapping.size;
      // Where it is not inside, or the file is closed, the native call has the error.
      return inside && whole.byteLength === mapping.size
        ? new Uint8Array(whole, offset, length)
        : new Uint8Array(view(offset, length));
    },
    dispose() {
      mapping.close();
      // The pages go when no buffer needs them: these ones now, not at some garbage collection.
      for (const buffer of buffers.splice(0)) native.detach(buffer);
    },
  };
}
