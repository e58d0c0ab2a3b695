/** The tests that every operator of one argument passes. */
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
  overflowOf,
  specials,
  strided,
  thrown,
} from '../reference/views.js';

interface Options extends RunOptions, AsyncOptions {
  out?: Tensor<FloatDType>;
}

export interface Unary {
  /** As messages name it. */
  name: string;
  run(x: Tensor<FloatDType>, options?: Options): Tensor<FloatDType>;
  runAsync(x: Tensor<FloatDType>, options?: Options): Promise<Tensor<FloatDType>>;
  reference(x: number): number;
  /** Largest error of a result in f32, from native/ops/elementwise/kernel.h. */
  bound(x: number, result: number): number;
}

export function testUnary({ name, run, runAsync, reference, bound }: Unary): void {
  const check = (x: Tensor<FloatDType>, y: Tensor<FloatDType>): void => {
    const inputs = x.toArray();
    const expected = inputs.map(reference);
    expectClose(
      y.toArray(),
      expected,
      (i) => bound(inputs[i] as number, expected[i] as number),
      y.dtype,
    );
  };

  it.each(isasHere)('%s: equals the reference over the whole range', (isa) => {
    const values: number[] = [...specials];
    for (let exponent = -149; exponent < 128; exponent += 0.37)
      values.push(2 ** exponent, -(2 ** exponent));
    for (let value = -120; value < 120; value += 0.0625) values.push(value + value / 512);
    const x = new Tensor('f32', values, [values.length]);
    check(x, run(x, { isa }));
  });

  it.each(isasHere)('%s: any shape, dtype, stride', (isa) => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 19 }), { maxLength: 3 }),
        fc.constantFrom(...floatTypes),
        fc.constantFrom(...floatTypes),
        fc.integer({ min: 0, max: 2 }),
        fc.integer({ min: 0, max: 2 }),
        fc.integer({ min: 1, max: 99 }),
        (shape, from, to, gapIn, gapOut, seed) => {
          const size = shape.reduce((product, n) => product * n, 1);
          const x = strided(from, gaussian(size, seed, 3), shape, gapIn);
          const out = strided(to, new Float32Array(size), shape, gapOut);
          expect(run(x, { isa, out })).toBe(out);
          check(x, out);
          expect(canaries(out).every((value) => value === -77)).toBe(true);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('works in place, at odd addresses, and on rank 0', () => {
    for (const dtype of floatTypes) {
      const values = gaussian(5001, 3);
      const apart = run(new Tensor(dtype, [...values], [5001]), {
        out: Tensor.zeros(dtype, [5001]),
      });
      const x = new Tensor(dtype, [...values], [5001]);
      run(x, { out: x });
      expect(x.toArray()).toEqual(apart.toArray());
      const memory = new Uint8Array(x.bytes.byteLength + 1);
      memory.set(new Tensor(dtype, [...values], [5001]).bytes, 1);
      const odd = new Tensor(dtype, memory.subarray(1), [5001]);
      run(odd, { out: odd });
      expect(odd.toArray()).toEqual(apart.toArray());
    }
    const scalar = new Tensor('f32', [1.5], []);
    check(scalar, run(scalar));
  });

  it('gives the same bits for any number of threads, and async', async () => {
    const x = new Tensor('f32', gaussian(100_003, 7, 4), [100_003]);
    const one = run(x, { threads: 1 });
    for (const threads of [2, 3, 7]) expect(bits(run(x, { threads })).equals(bits(one))).toBe(true);
    expect(bits(await runAsync(x)).equals(bits(one))).toBe(true);
    // An element's result does not depend on its neighbours.
    expect(run(x.slice(77, 78)).toArray()[0]).toBe(one.toArray()[77]);
  });

  it('overflows to infinity in f16 and bf16 as rounding says', () => {
    for (const dtype of ['f16', 'bf16'] as const) {
      const x = new Tensor('f32', [3e38, overflowOf[dtype], 60000], [3]);
      check(x, run(x, { out: Tensor.zeros(dtype, [3]) }));
    }
  });

  it('reports what is wrong before anything is written', async () => {
    const x = new Tensor('f32', [1, 2, 3, 4], [2, 2]);
    const out = Tensor.zeros('f32', [2, 3]);
    expect(thrown(() => run(x, { out }))).toEqual({
      code: 'BL_INVALID_SHAPE',
      name: 'RangeError',
      message: `${name}: output.shape[1] is 3, expected 2 (= x.shape[1])`,
    });
    expect(thrown(() => run(new Tensor('i32', [1], [1]) as unknown as Tensor<'f32'>))).toEqual({
      code: 'BL_INVALID_DTYPE',
      name: 'TypeError',
      message: `${name}: x.dtype is i32, expected f32 or f16 or bf16`,
    });
    const memory = Float32Array.of(1, 2, 3, 4, 5);
    const part = new Tensor('f32', memory.subarray(1), [4]);
    expect(thrown(() => run(new Tensor('f32', memory, [4]), { out: part }))).toEqual({
      code: 'BL_INVALID_ARGUMENT',
      name: 'TypeError',
      message: `${name}: output overlaps x in part, expected the same view or separate memory`,
    });
    expect([...memory, ...out.toArray()]).toEqual([1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0]);
    await expect(runAsync(x, { out })).rejects.toMatchObject({ code: 'BL_INVALID_SHAPE' });
  });
}
