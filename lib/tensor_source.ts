// Memory that tensors are laid over.
import { argumentError } from './errors.js';
import { type DType, dtypes } from './generated.js';

/** Memory a tensor can be laid over without a copy. */
export type TensorSource = ArrayBufferLike | ArrayBufferView;

/** Bytes of `source` as they lie, no copy. */
export function bytesOf(source: TensorSource): Uint8Array {
  if (ArrayBuffer.isView(source)) {
    return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  }
  return new Uint8Array(source as ArrayBuffer);
}

/** True for `Float16Array`, where the runtime has it. */
function isFloat16Array(value: unknown): boolean {
  return Object.prototype.toString.call(value) === '[object Float16Array]';
}

/**
 * Bytes of what may be anything: raw ones hold any dtype, a typed array of wider elements must be of this one.
 *
 * @throws `BL_INVALID_ARGUMENT`, `BL_INVALID_DTYPE`
 */
export function checkedBytes(data: TensorSource, dtype: DType): Uint8Array {
  const { array } = dtypes[dtype];
  const isBuffer =
    data instanceof ArrayBuffer ||
    (typeof SharedArrayBuffer !== 'undefined' && data instanceof SharedArrayBuffer);
  if (isBuffer) return bytesOf(data);
  if (!ArrayBuffer.isView(data)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `Tensor: data is ${data === null ? 'null' : typeof data}, expected a typed array or buffer`,
    );
  }
  const kind = Object.prototype.toString.call(data).slice(8, -1);
  const raw = kind === 'Uint8Array' || kind === 'DataView';
  if (!raw && kind !== array && !(isFloat16Array(data) && dtype === 'f16')) {
    throw argumentError(
      'BL_INVALID_DTYPE',
      `Tensor: data is a ${kind}, expected ${array} or raw bytes for dtype ${dtype}`,
    );
  }
  return bytesOf(data);
}
