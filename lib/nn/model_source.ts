import { argumentError } from '../errors.js';
import { type ByteSource, mapFile, memorySource } from '../io/index.js';

/** Where a model is read from: a path, which is mapped; bytes in memory; or a source of one's own. */
export type ModelSource = string | Uint8Array | ArrayBuffer | ByteSource;

/** The source, and how to let go of it. A source of the caller's stays open: it is theirs. */
export function openSource(from: ModelSource): { source: ByteSource; close: () => void } {
  if (typeof from === 'string') {
    const source = mapFile(from);
    return { source, close: () => source.dispose() };
  }
  if (from instanceof Uint8Array || from instanceof ArrayBuffer) {
    const source = memorySource(from instanceof Uint8Array ? from : new Uint8Array(from));
    return { source, close: () => source.dispose() };
  }
  if (typeof from === 'object' && from !== null && typeof from.bytes === 'function') {
    return { source: from, close: () => {} };
  }
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    'load: model is neither a path, bytes in memory nor a ByteSource',
  );
}
