// What the tests of rope, attention and sample share: levels to force, views with gaps, golden files.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { type FloatDType, type Isa, machine, Tensor } from '../../lib/index.js';

/** The levels of this machine that have kernels of their own here; scalar first. */
export const isas: Isa[] = machine().isas.filter((isa) =>
  ['scalar', 'avx2', 'avx512', 'neon'].includes(isa),
);

/** Whether operators run on a device instead (test/cuda/on_device.ts). */
export const onDevice = process.env.BITLOOM_TEST_DEVICE !== undefined;

export const floatTypes: FloatDType[] = ['f32', 'f16', 'bf16'];

/** Relative rounding step of a dtype. */
export const epsilon: Record<FloatDType, number> = { f32: 2 ** -23, f16: 2 ** -10, bf16: 2 ** -7 };

/** `values` in row-major order as a view with `gap` unused elements after each step of each axis. */
export function strided<D extends FloatDType | 'i32'>(
  dtype: D,
  values: readonly number[] | Float32Array,
  shape: readonly number[],
  gaps: readonly number[],
): Tensor<D> {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    step += gaps[axis] ?? 0;
    strides[axis] = step;
    step *= Math.max(shape[axis] as number, 1);
  }
  // Gaps hold NaN, so that a kernel that reads one shows it (as f16 and bf16 too; i32 holds a large id).
  const memory = new Array<number>(step).fill(dtype === 'i32' ? 2 ** 30 : Number.NaN);
  values.forEach((value: number, i: number) => {
    let rest = i;
    let offset = 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      offset += (rest % (shape[axis] as number)) * (strides[axis] as number);
      rest = Math.floor(rest / (shape[axis] as number));
    }
    memory[offset] = value;
  });
  const dense = new Tensor<FloatDType | 'i32'>(dtype, memory, [step]);
  return new Tensor<FloatDType | 'i32'>(dtype, dense.bytes, shape, {
    strides,
  }) as Tensor as Tensor<D>;
}

/** The error that `body` throws must have this code and message. */
export function expectError(body: () => unknown, code: string, message: string): void {
  let thrown: unknown;
  try {
    body();
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(Error);
  expect({ code: (thrown as { code: string }).code, message: (thrown as Error).message }).toEqual({
    code,
    message,
  });
}

/** Largest |actual - expected| / (absolute + relative * |expected|); 1 and below is within the bound. */
export function worst(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  absolute: number,
  relative: number,
): number {
  expect(actual.length).toBe(expected.length);
  let largest = 0;
  for (let i = 0; i < actual.length; i++) {
    const a = actual[i] as number;
    const e = expected[i] as number;
    if (Number.isNaN(a) && Number.isNaN(e)) continue;
    if (a === e) continue;
    const error = Math.abs(a - e) / (absolute + relative * Math.abs(e));
    if (!(error <= largest)) largest = Number.isNaN(error) ? Number.POSITIVE_INFINITY : error;
  }
  return largest;
}

/** Cases of a golden file, undefined where the file is absent. */
export function goldenCases<Case>(name: string): Case[] | undefined {
  const shared = process.env.BITLOOM_SHARED ?? join(import.meta.dirname, '../../../shared');
  const file = join(shared, 'golden', name);
  if (!existsSync(file)) return undefined;
  return JSON.parse(readFileSync(file, 'utf8')).cases as Case[];
}
