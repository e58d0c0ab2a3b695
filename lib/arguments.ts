// Checks of what JavaScript callers pass, before anything reads it.
import { argumentError } from './errors.js';
import type { QuantizedTensor } from './quantized_tensor.js';
import type { Tensor } from './tensor.js';

/** What `value` is, for messages: `undefined`, `"x"`, `3`, `a Float32Array`. */
export function described(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value !== 'object' && typeof value !== 'function') return String(value);
  const name = typeof value === 'function' ? 'function' : (value.constructor?.name ?? 'object');
  return `${/^[AEIOU]/.test(name) ? 'an' : 'a'} ${name}`;
}

function refuse(op: string, name: string, value: unknown, expected: string): never {
  throw argumentError(
    'BL_INVALID_ARGUMENT',
    `${op}: ${name} is ${described(value)}, expected ${expected}`,
  );
}

/**
 * A property of tensors, true for what their constructor has made. By a registered symbol, not by class: a process may hold the ESM and the
 * CommonJS build of this package. What only looks like a tensor, or inherits from one, lacks its private fields.
 */
export const isTensor: unique symbol = Symbol.for('bitloom.Tensor');

/** The same of quantized tensors. */
export const isQuantizedTensor: unique symbol = Symbol.for('bitloom.QuantizedTensor');

const has = (value: unknown, brand: symbol): boolean =>
  typeof value === 'object' && value !== null && (value as Record<symbol, unknown>)[brand] === true;

/** @throws `BL_INVALID_ARGUMENT` unless `value` is a Tensor */
export function checkTensor(op: string, name: string, value: unknown): asserts value is Tensor {
  if (!has(value, isTensor)) refuse(op, name, value, 'a Tensor');
}

/** @throws `BL_INVALID_ARGUMENT` unless `value` is a QuantizedTensor */
export function checkWeights(
  op: string,
  name: string,
  value: unknown,
): asserts value is QuantizedTensor {
  if (!has(value, isQuantizedTensor)) refuse(op, name, value, 'a QuantizedTensor');
}

/** @throws `BL_INVALID_ARGUMENT` unless `value` is an object, e.g. of options */
export function checkObject(op: string, name: string, value: unknown): asserts value is object {
  if (typeof value !== 'object' || value === null) refuse(op, name, value, 'an object');
}

/** @throws `BL_INVALID_ARGUMENT` if `options` is no object or has a property that is not in `known` */
export function checkOptions(op: string, options: unknown, known: ReadonlySet<string>): void {
  checkObject(op, 'options', options);
  for (const name in options) {
    if (!known.has(name)) {
      throw argumentError(
        'BL_INVALID_ARGUMENT',
        `${op}: option ${JSON.stringify(name)} is not known, expected one of ${[...known].join(', ')}`,
      );
    }
  }
}

/** @throws `BL_INVALID_ARGUMENT` unless `value` is a number that `accepts` takes */
export function checkNumber(
  op: string,
  name: string,
  value: unknown,
  expected: string,
  accepts: (value: number) => boolean,
): asserts value is number {
  if (typeof value !== 'number' || !accepts(value)) refuse(op, name, value, expected);
}
