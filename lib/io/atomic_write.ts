import { randomBytes } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { argumentError } from '../errors.js';

// One write call takes at most 2^31 - 1 bytes on every platform.
const MAX_WRITE = 2 ** 30;

/**
 * Writes chunks to a temporary file beside `path` and renames it when all are on disk: a reader, or a crash, finds the
 * old file or the new one, never half of it. When a chunk or a write fails, the temporary file is removed.
 */
export async function writeAtomically(
  path: string,
  operator: string,
  chunks: AsyncIterable<Uint8Array>,
): Promise<void> {
  if (typeof path !== 'string' || path === '' || path.includes('\0')) {
    throw argumentError('BL_INVALID_ARGUMENT', `${operator}: path is not a file name`);
  }
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  const file = await open(temporary, 'wx');
  try {
    try {
      for await (const chunk of chunks) {
        for (let at = 0; at < chunk.length; ) {
          const { bytesWritten } = await file.write(
            chunk,
            at,
            Math.min(MAX_WRITE, chunk.length - at),
          );
          at += bytesWritten;
        }
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
