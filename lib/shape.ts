// Shapes and strides.
import { argumentError } from './errors.js';

const maxRank = 6;

/** Elements of a shape; throws `BL_INVALID_SHAPE` unless it is a list of whole numbers of at least 0. */
export function elementCount(shape: readonly number[], what = 'Tensor'): number {
  if (!Array.isArray(shape) || shape.length > maxRank) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${what}: shape is not a list of at most ${maxRank} sizes`,
    );
  }
  let count = 1;
  for (let axis = 0; axis < shape.length; axis++) {
    const size = shape[axis];
    if (!Number.isSafeInteger(size) || (size as number) < 0) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `${what}: shape[${axis}] is ${size}, expected a whole number of at least 0`,
      );
    }
    count *= size as number;
  }
  if (!Number.isSafeInteger(count)) {
    throw argumentError(
      'BL_INVALID_SHAPE',
      `${what}: shape [${shape}] has more than 2^53 elements`,
    );
  }
  return count;
}

/** Strides of contiguous rows, in elements. */
export function contiguousStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = step;
    step *= Math.max(shape[axis] as number, 1);
  }
  return strides;
}

/**
 * Elements from a tensor's first to its last, both included; 0 if it has none.
 *
 * @throws `BL_INVALID_SHAPE` for a stride that is no whole number of at least 0
 */
export function extentOf(shape: readonly number[], strides: readonly number[]): number {
  let last = 0;
  for (let axis = 0; axis < shape.length; axis++) {
    const stride = strides[axis] as number;
    if (!Number.isSafeInteger(stride) || stride < 0) {
      throw argumentError(
        'BL_INVALID_SHAPE',
        `Tensor: strides[${axis}] is ${stride}, expected a whole number of at least 0`,
      );
    }
    if (shape[axis] === 0) return 0;
    last += ((shape[axis] as number) - 1) * stride;
  }
  return last + 1;
}

/** Calls `visit` with the place of every element, in row-major order. */
export function forEachPlace(
  shape: readonly number[],
  strides: readonly number[],
  visit: (place: number) => void,
): void {
  const walk = (axis: number, place: number): void => {
    if (axis === shape.length) {
      visit(place);
      return;
    }
    for (let i = 0; i < (shape[axis] as number); i++)
      walk(axis + 1, place + i * (strides[axis] as number));
  };
  if (!shape.includes(0)) walk(0, 0);
}
