import { argumentError } from '../errors.js';

/**
 * Bytes of a tensor to write, or a function that makes them. A function is called once, when its tensor's turn to be
 * written comes, and its result is dropped before the next one: memory holds one tensor at a time.
 */
export type TensorData = Uint8Array | (() => Uint8Array | Promise<Uint8Array>);

/** Makes the data if it is a function. Without promises when `data` has none. */
export function produce(data: TensorData): Uint8Array | Promise<Uint8Array> {
  return typeof data === 'function' ? data() : data;
}

/**
 * Data that is what it should be.
 *
 * @param what Begins the message of an error: operator and tensor.
 * @param expected Bytes that `shown` (type and shape) needs.
 */
export function checkData(
  data: unknown,
  what: string,
  expected: number,
  shown: string,
): Uint8Array {
  if (!(data instanceof Uint8Array)) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${what} has ${typeof data} data, expected a Uint8Array`,
    );
  }
  if (data.byteLength !== expected) {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${what} has ${data.byteLength} bytes of data, expected ${expected} (${shown})`,
    );
  }
  return data;
}
