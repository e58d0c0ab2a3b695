import { argumentError } from '../../errors.js';
import { native } from '../../native.js';
import { elementCount } from '../../shape.js';

/**
 * Activations in the form that `matmul` with `compute: 'i8'` reads, made by `prepareActivations`: int8 codes with a
 * scale per 32, and perhaps tables. An opaque buffer: the same at every instruction set level, but only of use to
 * the version that made it.
 */
export class PreparedActivations {
  /** Of the activations, [..., M, K] (or [K]). */
  readonly shape: readonly number[];
  /** Tables it holds, a sum of: 1 for planes of one bit, 2 for planes of two bits; 4 and 8 the same as `fast` ones. */
  readonly tables: number;
  #bytes: Uint8Array;
  #disposed = false;

  /** Memory for activations of that shape, not yet prepared: `out` of `prepareActivations`. */
  constructor(shape: readonly number[], tables = 0) {
    const k = shape.at(-1);
    if (k === undefined) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        'PreparedActivations: shape is [], expected [..., K]',
      );
    }
    const m = elementCount(shape.slice(0, -1), 'PreparedActivations');
    elementCount(shape, 'PreparedActivations');
    if (!Number.isInteger(tables) || tables < 0 || tables > 15) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `PreparedActivations: tables is ${tables}, expected 0 to 15`,
      );
    }
    const bytes = native.preparedBytes(m, k, tables);
    try {
      this.#bytes = new Uint8Array(bytes);
    } catch (cause) {
      throw Object.assign(
        argumentError('BL_OUT_OF_MEMORY', `PreparedActivations: cannot allocate ${bytes} bytes`),
        { cause },
      );
    }
    this.shape = Object.freeze([...shape]);
    this.tables = tables;
  }

  get bytes(): Uint8Array {
    if (this.#disposed) {
      throw argumentError('BL_DETACHED', 'PreparedActivations: used after dispose()');
    }
    return this.#bytes;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Frees the memory now. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    native.detach(this.#bytes.buffer as ArrayBuffer);
    this.#bytes = new Uint8Array(0);
  }

  /** {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
