import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type FloatDType,
  type RopeMode,
  type RopeScaling,
  rope,
  ropeAsync,
  Tensor,
} from '../../lib/index.js';
import { epsilon, floatTypes, isas, strided, worst } from '../reference/op_checks.js';
import { firstDifference, gaussian } from '../reference/random.js';
import { frequencies, ropeReference } from '../reference/rope.js';

const modes: RopeMode[] = ['interleaved', 'half'];
const scalings: (RopeScaling | undefined)[] = [
  undefined,
  { type: 'linear', factor: 2.5 },
  { type: 'llama3', factor: 8, originalContext: 8192 },
  { type: 'llama3', factor: 32, originalContext: 512, lowFreqFactor: 1.5, highFreqFactor: 3 },
  { type: 'yarn', factor: 4, originalContext: 4096 },
  {
    type: 'yarn',
    factor: 16,
    originalContext: 64,
    attentionFactor: 1.25,
    betaFast: 8,
    betaSlow: 2,
  },
];
/** cos, sin and four roundings in f32: |error| <= 4 steps of the pair's length. */
const bound = (values: ArrayLike<number>, dtype: FloatDType): number =>
  (4 * epsilon.f32 + epsilon[dtype] / 2) * 2 * Math.max(1e-30, ...Array.from(values, Math.abs));

describe('rope', () => {
  it.each(floatTypes)('matches the formula for all shapes, modes and scalings in %s', (dtype) => {
    fc.assert(
      fc.property(
        fc.record({
          batches: fc.integer({ min: 1, max: 2 }),
          tokens: fc.integer({ min: 0, max: 5 }),
          heads: fc.integer({ min: 0, max: 4 }),
          pairs: fc.integer({ min: 0, max: 37 }),
          rest: fc.integer({ min: 0, max: 9 }),
          mode: fc.constantFrom(...modes),
          scaling: fc.constantFrom(...scalings),
          theta: fc.constantFrom(10000, 500000, 7.5),
          factors: fc.boolean(),
          isa: fc.constantFrom(...isas),
          seed: fc.integer(),
        }),
        ({ batches, tokens, heads, pairs, rest, mode, scaling, theta, factors, isa, seed }) => {
          const rotaryDim = 2 * pairs;
          fc.pre(rotaryDim > 0 || rest === 0);
          const headDim = rotaryDim + rest;
          const shape = [batches, tokens, heads, headDim] as const;
          const x = strided(
            dtype,
            gaussian(batches * tokens * heads * headDim, seed),
            shape,
            [3, 1, 2],
          );
          const positions = Array.from(
            { length: tokens },
            (_, t) => (t * 7919 + (seed % 1000) + 1000) % 131072,
          );
          const freqFactors = factors
            ? Array.from({ length: pairs }, (_, j) => 1 + j / 8)
            : undefined;
          const values = x.toArray();
          const expected = ropeReference(values, shape, positions, {
            mode,
            rotaryDim,
            theta,
            scaling,
            ...(freqFactors === undefined ? {} : { freqFactors }),
          });
          const actual = rope(x, strided('i32', positions, [tokens], [1]), {
            mode,
            theta,
            isa,
            rotaryDim,
            out: strided(dtype, values, shape, [0, 5, 1]),
            ...(scaling === undefined ? {} : { scaling }),
            ...(freqFactors === undefined
              ? {}
              : { freqFactors: new Tensor('f32', freqFactors, [pairs]) }),
          });
          expect(worst(actual.toArray(), expected, bound(values, dtype), 0)).toBeLessThanOrEqual(1);
        },
      ),
      { numRuns: 150 },
    );
  });

  it('turns a known pair: position 1, frequency 1', () => {
    const x = new Tensor('f32', [1, 0, 0, 1], [1, 2, 2]);
    const expected = [Math.cos(1), Math.sin(1), -Math.sin(1), Math.cos(1)].map(Math.fround);
    expect(rope(x, new Tensor('i32', [1], [1])).toArray()).toEqual(expected);
    expect(rope(x, new Tensor('i32', [1], [1]), { mode: 'interleaved' }).toArray()).toEqual(
      expected,
    );
  });

  it('leaves position 0 and channels past rotaryDim as they are', () => {
    const x = new Tensor('f32', gaussian(3 * 2 * 10), [3, 2, 10]);
    expect(rope(x, new Tensor('i32', [0, 0, 0], [3])).data).toEqual(x.data);
    const partly = rope(x, new Tensor('i32', [5, 6, 7], [3]), { rotaryDim: 4 }).toArray();
    x.toArray().forEach((value, i) => {
      if (i % 10 >= 4) expect(partly[i]).toBe(value);
      else expect(partly[i]).not.toBe(value);
    });
  });

  it('keeps angles exact at the largest positions', () => {
    const x = new Tensor('f32', [1, 0], [1, 1, 2]);
    const position = 2 ** 31 - 1;
    const { data } = rope(x, new Tensor('i32', [position], [1]));
    expect(Array.from(data)).toEqual([Math.cos(position), Math.sin(position)].map(Math.fround));
  });

  it.each(modes)(
    'gives equal bits on every level, thread count and in place (%s)',
    async (mode) => {
      const shape = [70, 5, 46];
      const positions = new Tensor(
        'i32',
        Array.from({ length: 70 }, (_, t) => 3 * t),
        [70],
      );
      const values = gaussian(70 * 5 * 46);
      const x = new Tensor('f32', values, shape);
      const options = { mode, rotaryDim: 42 };
      const expected = rope(x, positions, { ...options, isa: 'scalar', threads: 1 });
      for (const isa of isas) {
        for (const threads of [1, 2, 3, 7]) {
          const actual = rope(x, positions, { ...options, isa, threads });
          expect(firstDifference(actual.bytes, expected.bytes)).toBe(-1);
        }
        const same = new Tensor('f32', values.slice(), shape);
        expect(rope(same, positions, { ...options, isa, out: same })).toBe(same);
        expect(firstDifference(same.bytes, expected.bytes)).toBe(-1);
      }
      expect(firstDifference((await ropeAsync(x, positions, options)).bytes, expected.bytes)).toBe(
        -1,
      );
    },
  );

  it('follows the formula for NaN, infinity and denormals', () => {
    const tiny = 2 ** -149;
    const x = new Tensor(
      'f32',
      [Number.NaN, 1, Number.POSITIVE_INFINITY, 1, tiny, 0, 2, 2],
      [1, 4, 2],
    );
    for (const isa of isas) {
      const y = rope(x, new Tensor('i32', [1], [1]), { isa }).toArray();
      expect(y.slice(0, 2)).toEqual([Number.NaN, Number.NaN]);
      expect(y.slice(2, 4)).toEqual([Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
      expect(y.slice(4, 6)).toEqual([tiny, tiny]);
      expect(y[6]).toBeCloseTo(2 * Math.cos(1) - 2 * Math.sin(1), 6);
    }
  });

  it('computes Llama 3.1 frequencies', () => {
    // rotaryDim 128, theta 500000, factor 8, context 8192: ends of the published curve.
    const scaling: RopeScaling = { type: 'llama3', factor: 8, originalContext: 8192 };
    const plain = frequencies({ mode: 'half', rotaryDim: 128, theta: 500000 }).turns;
    const { turns } = frequencies({ mode: 'half', rotaryDim: 128, theta: 500000, scaling });
    expect(turns[0]).toBe(1);
    expect(turns[28]).toBe(plain[28]);
    expect(turns[63]).toBeCloseTo((plain[63] as number) / 8, 15);
    const x = new Float32Array(128).fill(1);
    const actual = rope(new Tensor('f32', x, [1, 1, 128]), new Tensor('i32', [1000], [1]), {
      theta: 500000,
      scaling,
    }).toArray();
    turns.forEach((f, j) => {
      expect(actual[j]).toBeCloseTo(Math.cos(1000 * f) - Math.sin(1000 * f), 5);
    });
  });
});
