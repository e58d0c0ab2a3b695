/** The tests that every operator of two arguments passes. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type AsyncOptions, type FloatDType, type RunOptions, Tensor } from '../../lib/index.js';
import { gaussian } from '../reference/random.js';
import {
  bits,
  canaries,
  expectClose,
  floatTypes,
  isasHere,
  specials,
  strided,
  thrown,
} from '../reference/views.js';

interface Options extends RunOptions, AsyncOptions {
  out?: Tensor<FloatDType>;
}
type Float = Tensor<FloatDType>;

export interface Binary {
  /** As messages name it. */
  name: string;
  /** Whether right may have fewer axes than left. */
  repeats: boolean;
  run(left: Float, right: Float, options?: Options): Float;
  runAsync(left: Float, right: Float, options?: Options): Promise<Float>;
  reference(left: number, right: number): number;
  /** Largest error of a result in f32, from native/ops/elementwise/kernel.h. */
  bound(left: number, right: number, result: number): number;
}

export function testBinary({ name, repeats, run, runAsync, reference, bound }: Binary): void {
  const check = (left: Float, right: Float, output: Float): void => {
    const a = left.toArray();
    const b = right.toArray();
    const at = (i: number): number => b[i % b.length] as number;
    const expected = a.map((value, i) => reference(value, at(i)));
    expectClose(
      output.toArray(),
      expected,
      (i) => bound(a[i] as number, at(i), expected[i] as number),
      output.dtype,
    );
  };

  it.each(isasHere)('%s: special values', (isa) => {
    const values = [...specials, 1, -1, 0.5, -50, -100, 7e-39];
    const left = values.flatMap((value) => values.map(() => value));
    const right = values.flatMap(() => values);
    const shape = [left.length];
    const a = new Tensor('f32', left, shape);
    const b = new Tensor('f32', right, shape);
    check(a, b, run(a, b, { isa }));
  });

  it.each(isasHere)('%s: any shape, dtype, stride, repeat', (isa) => {
    const dtype = fc.constantFrom(...floatTypes);
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 11 }), { maxLength: 4 }),
        fc.tuple(dtype, dtype, dtype),
        fc.tuple(
          fc.integer({ min: 0, max: 2 }),
          fc.integer({ min: 0, max: 2 }),
          fc.integer({ min: 0, max: 2 }),
        ),
        fc.integer({ min: 0, max: 4 }),
        fc.integer({ min: 1, max: 99 }),
        (shape, [leftType, rightType, outType], [leftGap, rightGap, outGap], drop, seed) => {
          const suffix = repeats ? shape.slice(Math.min(drop, shape.length)) : shape;
          const size = (of: number[]): number => of.reduce((product, n) => product * n, 1);
          const left = strided(leftType, gaussian(size(shape), seed, 3), shape, leftGap);
          const right = strided(rightType, gaussian(size(suffix), seed + 1, 3), suffix, rightGap);
          const out = strided(outType, new Float32Array(size(shape)), shape, outGap);
          expect(run(left, right, { isa, out })).toBe(out);
          check(left, right, out);
          expect(canaries(out).every((value) => value === -77)).toBe(true);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('works in place of either argument', () => {
    for (const dtype of floatTypes) {
      const make = (seed: number): Float => new Tensor(dtype, [...gaussian(5001, seed)], [3, 1667]);
      const expected = run(make(1), make(2), { out: Tensor.zeros(dtype, [3, 1667]) }).toArray();
      const left = make(1);
      expect(run(left, make(2), { out: left }).toArray()).toEqual(expected);
      const right = make(2);
      expect(run(make(1), right, { out: right }).toArray()).toEqual(expected);
    }
  });

  it('gives the same bits for any number of threads, and async', async () => {
    const left = new Tensor('f32', gaussian(99_999, 7, 4), [3, 33_333]);
    const right = new Tensor('f32', gaussian(99_999, 8, 4), [3, 33_333]);
    const one = run(left, right, { threads: 1 });
    check(left, right, one);
    for (const threads of [2, 3, 7])
      expect(bits(run(left, right, { threads })).equals(bits(one))).toBe(true);
    expect(bits(await runAsync(left, right)).equals(bits(one))).toBe(true);
  });

  it('reports what is wrong before anything is written', () => {
    const left = new Tensor('f32', [1, 2, 3, 4], [2, 2]);
    const out = Tensor.zeros('f32', [2, 2]);
    const odd = Tensor.zeros('f32', [3]);
    expect(thrown(() => run(left, odd, { out }))).toEqual({
      code: 'BL_INVALID_SHAPE',
      name: 'RangeError',
      message: repeats
        ? `${name}: right.shape[0] is 3, expected 2 (= left.shape[1])`
        : `${name}: right.rank is 1, expected 2 (= left.rank)`,
    });
    expect(thrown(() => run(odd, left, { out })).code).toBe('BL_INVALID_SHAPE');
    expect(thrown(() => run(left, left, { out: odd }))).toEqual({
      code: 'BL_INVALID_SHAPE',
      name: 'RangeError',
      message: `${name}: output.rank is 1, expected 2 (= left.rank)`,
    });
    expect(
      thrown(() => run(left, new Tensor('u8', [1], [1]) as unknown as Float, { out })),
    ).toEqual({
      code: 'BL_INVALID_DTYPE',
      name: 'TypeError',
      message: `${name}: right.dtype is u8, expected f32 or f16 or bf16`,
    });
    const memory = Float32Array.of(1, 2, 3, 4, 5);
    const first = new Tensor('f32', memory, [4]);
    const second = new Tensor('f32', memory.subarray(1), [4]);
    const third = Tensor.zeros('f32', [4]);
    expect(thrown(() => run(first, third, { out: second })).message).toBe(
      `${name}: output overlaps left in part, expected the same view or separate memory`,
    );
    expect(thrown(() => run(third, first, { out: second })).message).toBe(
      `${name}: output overlaps right in part, expected the same view or separate memory`,
    );
    expect([...memory, ...out.toArray()]).toEqual([1, 2, 3, 4, 5, 0, 0, 0, 0]);
  });
}
