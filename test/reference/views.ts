/** Tensors for operator tests: dtypes, strided views, special values, comparisons. */
import { expect } from 'vitest';
import { type FloatDType, type Isa, machine, Tensor } from '../../lib/index.js';

/** The levels of this machine that kernels are written for. */
export const isasHere: Isa[] = [...machine().isas];

export const floatTypes: FloatDType[] = ['f32', 'f16', 'bf16'];

/** Distance of neighbours of 1: half of it is the largest relative rounding error of a normal number. */
export const epsilonOf: Record<FloatDType, number> = {
  f32: 2 ** -23,
  f16: 2 ** -10,
  bf16: 2 ** -7,
};
/** The smallest subnormal number. */
export const smallestOf: Record<FloatDType, number> = {
  f32: 2 ** -149,
  f16: 2 ** -24,
  bf16: 2 ** -133,
};
/** From here on values round to infinity. */
export const overflowOf: Record<FloatDType, number> = {
  f32: 2 ** 128 * (1 - 2 ** -25),
  f16: 65520,
  bf16: 2 ** 128 * (1 - 2 ** -9),
};

export const specials: number[] = [
  0,
  -0,
  2 ** -149,
  -1e-40,
  1e-30,
  -1e-20,
  1e20,
  -1e30,
  3e38,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  Number.NaN,
];

/** A view with `gap` unused elements after every element of the last axis, filled with a canary. */
export function strided<D extends FloatDType>(
  dtype: D,
  values: ArrayLike<number>,
  shape: readonly number[],
  gap = 1,
): Tensor<D> {
  const strides: number[] = [];
  let step = gap + 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = step;
    step = step * Math.max(shape[axis] as number, 1) + gap;
  }
  const memory = new Array<number>(step).fill(-77);
  const dense = new Tensor(dtype, Array.from(values), shape) as Tensor<D>;
  const walk = (axis: number, offset: number, from: number): number => {
    if (axis === shape.length) {
      memory[offset] = values[from] as number;
      return from + 1;
    }
    let next = from;
    for (let i = 0; i < (shape[axis] as number); i++) {
      next = walk(axis + 1, offset + i * (strides[axis] as number), next);
    }
    return next;
  };
  if (dense.size > 0) walk(0, 0, 0);
  const flat = new Tensor(dtype, memory, [memory.length]) as Tensor<D>;
  return new Tensor<D>(dtype, flat.bytes, shape, { strides });
}

/** The elements of the memory under a strided view that do not belong to it. */
export function canaries(view: Tensor<FloatDType>): number[] {
  const all = new Tensor(view.dtype, view.bytes, [
    view.bytes.byteLength / (view.dtype === 'f32' ? 4 : 2),
  ]);
  const inside = new Set<number>();
  const walk = (axis: number, offset: number): void => {
    if (axis === view.rank) inside.add(offset);
    else
      for (let i = 0; i < (view.shape[axis] as number); i++) {
        walk(axis + 1, offset + i * (view.strides[axis] as number));
      }
  };
  if (view.size > 0) walk(0, 0);
  return all.toArray().filter((_, i) => !inside.has(i));
}

/**
 * Expects actual[i] within bound(i) of expected[i], a float64, plus the rounding to `dtype`. NaN must be met
 * by NaN, and what overflows the dtype by infinity.
 */
export function expectClose(
  actual: readonly number[],
  expected: readonly number[],
  bound: (i: number) => number,
  dtype: FloatDType = 'f32',
): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    const want = expected[i] as number;
    const got = actual[i] as number;
    if (!Number.isFinite(want)) {
      if (!Object.is(got, want)) expect.fail(`[${i}] is ${got}, expected ${want}`);
      continue;
    }
    const tolerance = bound(i) + Math.abs(want) * (epsilonOf[dtype] / 2) + smallestOf[dtype];
    const limit = overflowOf[dtype];
    const mayOverflow = Math.abs(want) + tolerance >= limit && got === Math.sign(want) * Infinity;
    if (!(got === want || mayOverflow || Math.abs(got - want) <= tolerance)) {
      expect.fail(`[${i}] is ${got}, expected ${want} within ${tolerance}`);
    }
  }
}

/** The bytes of a tensor's memory, to compare bits. */
export const bits = (tensor: Tensor): Buffer => Buffer.from(tensor.bytes);

/** What `body` throws, with its code. */
export function thrown(body: () => unknown): { code: string; message: string; name: string } {
  try {
    body();
  } catch (error) {
    const { code, message, name } = error as Error & { code: string };
    return { code, message, name };
  }
  return expect.fail('nothing was thrown');
}
