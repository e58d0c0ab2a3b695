import { described } from '../../arguments.js';
import { argumentError } from '../../errors.js';

/** `value` if it is a whole number from `min` to `max`; throws `BL_OUT_OF_RANGE` otherwise. */
export function wholeNumber(
  what: string,
  name: string,
  value: number,
  min: number,
  max: number,
): number {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
  throw argumentError(
    'BL_OUT_OF_RANGE',
    `${what}: ${name} is ${described(value)}, expected a whole number from ${min} to ${max}`,
  );
}

/** The first `limit` tokens as i32; throws `BL_OUT_OF_RANGE` for what is no such number, as two of them must not look the same. */
export function tokenIds(what: string, tokens: ArrayLike<number>, limit: number): Int32Array {
  if (tokens instanceof Int32Array) return tokens.subarray(0, limit);
  if (tokens === null || typeof tokens !== 'object') {
    throw argumentError(
      'BL_INVALID_ARGUMENT',
      `${what}: tokens is ${described(tokens)}, expected an array of token ids`,
    );
  }
  const length = wholeNumber(what, 'tokens.length', tokens.length, 0, Number.MAX_SAFE_INTEGER);
  const ids = new Int32Array(Math.min(length, limit));
  for (let i = 0; i < ids.length; i++) {
    const id = tokens[i] as number;
    if (typeof id === 'number') ids[i] = id;
    if (ids[i] !== id) {
      throw argumentError(
        'BL_OUT_OF_RANGE',
        `${what}: tokens[${i}] is ${described(id)}, expected a whole number of 32 bits`,
      );
    }
  }
  return ids;
}
