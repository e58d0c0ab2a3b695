/** The tests that both norms pass. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type AsyncOptions, type FloatDType, type RunOptions, Tensor } from '../../lib/index.js';
import { byRow } from '../reference/norm.js';
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

type Float = Tensor<FloatDType>;
interface Options extends RunOptions, AsyncOptions {
  epsilon?: number;
  out?: Float;
}

export interface NormCase {
  /** As messages name it. */
  name: string;
  /** Vectors that it takes: 1 weight, 2 weight and bias. */
  vectors: number;
  run(x: Float, vectors: Float[], options?: Options): Float;
  runAsync(x: Float, vectors: Float[], options?: Options): Promise<Float>;
  row(x: number[], vectors: number[][], epsilon: number): number[];
}

/**
 * Largest error of a row, from native/ops/norm/kernel.h: 2^-18 of the weight and of the normalized element
 * times it, for the f32 sums; 2^-22 of the bias for the last addition.
 */
function rowBounds(test: NormCase, x: number[], vectors: number[][], epsilon: number): number[] {
  const plain = test.row(x, [], epsilon);
  return plain.map(
    (value, i) =>
      (1 + Math.abs(value)) * Math.abs(vectors[0]?.[i] ?? 1) * 2 ** -18 +
      Math.abs(vectors[1]?.[i] ?? 0) * 2 ** -22,
  );
}

export function testNorm(test: NormCase): void {
  const { name, run, runAsync } = test;
  const check = (x: Float, vectors: Float[], epsilon: number, y: Float): void => {
    const length = x.shape[x.rank - 1] as number;
    const values = vectors.map((vector) => vector.toArray());
    const inputs = x.toArray();
    const expected = byRow(inputs, length, (row) => test.row(row, values, epsilon));
    const bounds = byRow(inputs, length, (row) => rowBounds(test, row, values, epsilon));
    expectClose(y.toArray(), expected, (i) => bounds[i] as number, y.dtype);
  };
  const makeVectors = (count: number, length: number, dtype: FloatDType): Float[] =>
    Array.from(
      { length: count },
      (_, v) => new Tensor(dtype, [...gaussian(length, 31 + v)], [length]) as Float,
    );

  it.each(isasHere)('%s: equals the reference for any shape, dtype, stride', (isa) => {
    const dtype = fc.constantFrom(...floatTypes);
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
        fc.oneof(fc.integer({ min: 0, max: 70 }), fc.constantFrom(255, 1023, 1025, 2500)),
        fc.tuple(dtype, dtype, dtype),
        fc.tuple(fc.integer({ min: 0, max: 2 }), fc.integer({ min: 0, max: 2 })),
        fc.integer({ min: 0, max: test.vectors }),
        fc.constantFrom(1e-5, 1e-6, 0.1),
        fc.integer({ min: 1, max: 99 }),
        (outer, length, [xType, vectorType, outType], [xGap, outGap], given, epsilon, seed) => {
          const shape = [...outer, length];
          const size = shape.reduce((product, n) => product * n, 1);
          const x = strided(xType, gaussian(size, seed, 3), shape, xGap);
          const vectors = makeVectors(given, length, vectorType);
          const out = strided(outType, new Float32Array(size), shape, outGap);
          expect(run(x, vectors, { isa, epsilon, out })).toBe(out);
          if (size > 0) check(x, vectors, epsilon, out);
          expect(canaries(out).every((value) => value === -77)).toBe(true);
        },
      ),
      { numRuns: 30 },
    );
  });

  it.each(isasHere)('%s: zeros, denormals, huge values, infinities, NaN', (isa) => {
    for (const special of specials) {
      for (const others of [0, 1e-40, 1, 1e30]) {
        const values = new Array<number>(37)
          .fill(0)
          .map((_, i) => (i % 2 === 0 ? others : -others / 2));
        values[17] = special;
        const x = new Tensor('f32', values, [1, 37]);
        check(x, [], 1e-5, run(x, [], { isa }));
      }
    }
    // Squares beyond the range of f32, a result within it.
    const huge = new Tensor('f32', [1e30, -1e30, 3e30, 0], [4]);
    check(huge, [], 0, run(huge, [], { isa, epsilon: 0 }));
    const tiny = new Tensor('f32', [1e-30, -1e-30, 3e-30, 0], [4]);
    check(tiny, [], 0, run(tiny, [], { isa, epsilon: 0 }));
  });

  it('works in place and at odd addresses', () => {
    for (const dtype of floatTypes) {
      const make = (): Float => new Tensor(dtype, [...gaussian(3003, 5)], [3, 1001]);
      const vectors = makeVectors(test.vectors, 1001, dtype);
      const expected = run(make(), vectors, { out: Tensor.zeros(dtype, [3, 1001]) }).toArray();
      const x = make();
      expect(run(x, vectors, { out: x }).toArray()).toEqual(expected);
      const memory = new Uint8Array(x.bytes.byteLength + 1);
      memory.set(make().bytes, 1);
      const odd = new Tensor(dtype, memory.subarray(1), [3, 1001]);
      expect(run(odd, vectors, { out: odd }).toArray()).toEqual(expected);
    }
  });

  it('gives the same bits for any number of threads, and async', async () => {
    const x = new Tensor('f32', gaussian(93 * 1001, 6), [93, 1001]);
    const vectors = makeVectors(test.vectors, 1001, 'f32');
    const one = run(x, vectors, { threads: 1 });
    check(x, vectors, 1e-5, one);
    for (const threads of [2, 3, 7])
      expect(bits(run(x, vectors, { threads })).equals(bits(one))).toBe(true);
    expect(bits(await runAsync(x, vectors)).equals(bits(one))).toBe(true);
    const half = strided('f16', gaussian(93 * 1001, 6), [93, 1001]);
    const first = run(half, vectors, { threads: 1, out: Tensor.zeros('bf16', [93, 1001]) });
    const seven = run(half, vectors, { threads: 7, out: Tensor.zeros('bf16', [93, 1001]) });
    expect(bits(seven).equals(bits(first))).toBe(true);
  });

  it('reports what is wrong before anything is written', async () => {
    const x = new Tensor('f32', [1, 2, 3, 4], [2, 2]);
    const out = Tensor.zeros('f32', [2, 2]);
    const wrong: [() => unknown, string, string][] = [
      [
        () => run(x, [], { out: Tensor.zeros('f32', [2, 3]) }),
        'BL_INVALID_SHAPE',
        'output.shape[1] is 3, expected 2 (= x.shape[1])',
      ],
      [
        () => run(x, [Tensor.zeros('f32', [3])], { out }),
        'BL_INVALID_SHAPE',
        'weight.shape[0] is 3, expected 2 (= x.shape[1])',
      ],
      [
        () => run(x, [strided('f32', [1, 2], [2])], { out }),
        'BL_INVALID_SHAPE',
        'weight.strides[0] is 2, expected 1',
      ],
      [
        () => run(x, [Tensor.zeros('i8', [2]) as unknown as Float], { out }),
        'BL_INVALID_DTYPE',
        'weight.dtype is i8, expected f32 or f16 or bf16',
      ],
      [
        () => run(Tensor.zeros('i32', [2, 2]) as unknown as Float, [], { out }),
        'BL_INVALID_DTYPE',
        'x.dtype is i32, expected f32 or f16 or bf16',
      ],
      [() => run(Tensor.zeros('f32', []), []), 'BL_INVALID_SHAPE', 'x.rank is 0, expected 1 to 6'],
      [
        () => run(x, [], { out, epsilon: -1 }),
        'BL_INVALID_ARGUMENT',
        'epsilon is -1, expected a finite number of at least 0',
      ],
      [
        () => run(x, [], { out, epsilon: Number.NaN }),
        'BL_INVALID_ARGUMENT',
        'epsilon is nan, expected a finite number of at least 0',
      ],
      [
        () => run(x, [out.slice(0, 1).reshape([2])], { out }),
        'BL_INVALID_ARGUMENT',
        'output overlaps weight, expected separate memory',
      ],
    ];
    for (const [body, code, message] of wrong) {
      expect(thrown(body)).toMatchObject({ code, message: `${name}: ${message}` });
    }
    expect(out.toArray()).toEqual([0, 0, 0, 0]);
    await expect(runAsync(x, [], { epsilon: -1 })).rejects.toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
    });
  });
}
