import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type FloatDType, mergeStates, mergeStatesAsync, Tensor } from '../../lib/index.js';
import { product } from '../reference/attention_cases.js';
import { epsilon, expectError, floatTypes, strided, worst } from '../reference/op_checks.js';
import { firstDifference, gaussian, randomSource } from '../reference/random.js';

/** output = sum_i exp(lse_i - lse) output_i, lse = ln(sum_i exp(lse_i)), in double. */
function reference(outputs: Tensor<FloatDType>, lses: Tensor<'f32'>) {
  const [parts, rows, heads, dim] = outputs.shape as [number, number, number, number];
  const [from, weights] = [outputs.toArray(), lses.toArray()];
  const output = new Float64Array(rows * heads * dim);
  const lse = new Float64Array(rows * heads);
  for (let row = 0; row < rows * heads; row++) {
    const own = Array.from({ length: parts }, (_, i) => weights[i * rows * heads + row] as number);
    const largest = Math.max(...own);
    if (largest === Number.NEGATIVE_INFINITY) {
      lse[row] = largest;
      continue;
    }
    lse[row] = largest + Math.log(own.reduce((sum, x) => sum + Math.exp(x - largest), 0));
    own.forEach((x, i) => {
      if (x === Number.NEGATIVE_INFINITY) return;
      for (let c = 0; c < dim; c++) {
        output[row * dim + c] =
          (output[row * dim + c] as number) +
          Math.exp(x - (lse[row] as number)) * (from[(i * rows * heads + row) * dim + c] as number);
      }
    });
  }
  return { output, lse };
}

describe('mergeStates', () => {
  it.each(floatTypes)('matches the formula in %s', (dtype) => {
    fc.assert(
      fc.property(
        fc.tuple(
          fc.integer({ min: 1, max: 9 }),
          fc.integer({ min: 0, max: 20 }),
          fc.integer({ min: 0, max: 5 }),
          fc.constantFrom(0, 1, 17, 64, 65, 130),
        ),
        fc.integer(),
        fc.constantFrom(1, 30, 200),
        fc.constantFrom<number[]>([], [1, 2, 3, 1]),
        (shape, seed, spread, gaps) => {
          const random = randomSource(seed);
          const outputs = strided(dtype, gaussian(product(shape), seed), shape, gaps);
          const weights = gaussian(product(shape.slice(0, 3)), seed + 1, spread).map((x) =>
            random() < 0.2 ? Number.NEGATIVE_INFINITY : x,
          );
          const lses = strided('f32', weights, shape.slice(0, 3), gaps.slice(1));
          const expected = reference(outputs, lses);
          const out = strided(
            dtype,
            new Float32Array(product(shape.slice(1))),
            shape.slice(1),
            gaps.slice(1),
          );
          const lse = strided(
            'f32',
            new Float32Array(product(shape.slice(1, 3))),
            shape.slice(1, 3),
            gaps.slice(2),
          );
          const result = mergeStates(outputs, lses, { out, lse });
          expect(result.output).toBe(out);
          expect(result.lse).toBe(lse);
          const largest = outputs.toArray().reduce((most, x) => Math.max(most, Math.abs(x)), 0);
          expect(
            worst(out.toArray(), expected.output, largest * (epsilon[dtype] / 2 + 2 ** -40), 0),
          ).toBeLessThanOrEqual(1);
          expect(worst(lse.toArray(), expected.lse, 2 ** -40, epsilon.f32 / 2)).toBeLessThanOrEqual(
            1,
          );
        },
      ),
      { numRuns: 50 },
    );
  });

  it('takes no part with lse -infinity, whatever its output', () => {
    const { NaN: nan, POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: minus } = Number;
    for (const [values, weights, output, lse] of [
      [[nan, 3, inf], [minus, 1, minus], 3, 1],
      [[nan, inf, 1], [minus, minus, minus], 0, minus],
      [[1, 2, 3], [nan, 0, 0], nan, nan],
      [[1, 2, 3], [0, 0, nan], nan, nan],
      [[1, 2, 3], [inf, 0, 0], nan, nan],
      [[1, inf, 3], [0, 0, 0], inf, Math.fround(Math.log(3))],
      [[1, 5, 1], [-1000, 1000, 0], 5, 1000],
    ] as [number[], number[], number, number][]) {
      const outputs = new Tensor('f32', values, [3, 1, 1, 1]);
      const joined = mergeStates(outputs, new Tensor('f32', weights, [3, 1, 1]));
      expect([weights, ...joined.output.data, ...joined.lse.data]).toEqual([weights, output, lse]);
    }
  });

  it('gives the same bits on any number of threads and on a worker', async () => {
    const outputs = new Tensor('bf16', [...gaussian(4 * 50 * 6 * 33, 1)], [4, 50, 6, 33]);
    const lses = new Tensor('f32', gaussian(4 * 50 * 6, 2, 3), [4, 50, 6]);
    const expected = mergeStates(outputs, lses, { threads: 1 });
    for (const threads of [2, 3, 7]) {
      const actual = mergeStates(outputs, lses, { threads });
      expect(firstDifference(actual.output.bytes, expected.output.bytes)).toBe(-1);
      expect(firstDifference(actual.lse.bytes, expected.lse.bytes)).toBe(-1);
    }
    const async = await mergeStatesAsync(outputs, lses);
    expect(firstDifference(async.output.bytes, expected.output.bytes)).toBe(-1);
    expect(firstDifference(async.lse.bytes, expected.lse.bytes)).toBe(-1);
  });

  it('joins joined parts: any order, within rounding', () => {
    const outputs = new Tensor('f32', gaussian(4 * 7 * 16, 3), [4, 7, 1, 16]);
    const lses = new Tensor('f32', gaussian(4 * 7, 4, 2), [4, 7, 1]);
    const all = mergeStates(outputs, lses);
    const join = (...parts: { output: Tensor<'f32'>; lse: Tensor<'f32'> }[]) =>
      mergeStates(
        new Tensor(
          'f32',
          parts.flatMap((part) => part.output.toArray()),
          [parts.length, 7, 1, 16],
        ),
        new Tensor(
          'f32',
          parts.flatMap((part) => part.lse.toArray()),
          [parts.length, 7, 1],
        ),
      );
    const part = (i: number) => ({
      output: outputs.slice(i, i + 1).reshape([7, 1, 16]),
      lse: lses.slice(i, i + 1).reshape([7, 1]),
    });
    const joined = join(join(part(3), part(1)), join(part(0), part(2)));
    expect(worst(joined.output.data, all.output.data, 32 * epsilon.f32, 0)).toBeLessThanOrEqual(1);
    expect(worst(joined.lse.data, all.lse.data, 8 * epsilon.f32, epsilon.f32)).toBeLessThanOrEqual(
      1,
    );
  });

  it('says what is wrong', async () => {
    const [some, weights] = [Tensor.zeros('f32', [1, 1, 1, 2]), Tensor.zeros('f32', [1, 1, 1])];
    expect(() => mergeStates(some, weights, { output: some } as object)).toThrow(
      /^mergeStates: option "output" is not known, expected one of isa, threads/,
    );
    const f32 = (...shape: number[]) => Tensor.zeros('f32', shape);
    const outputs = f32(2, 3, 4, 5);
    const lses = f32(2, 3, 4);
    const shapes: [Tensor<FloatDType>, Tensor<'f32'>, object, string][] = [
      [f32(3, 4, 5), lses, { out: f32(3, 4, 5), lse: f32(3, 4) }, 'outputs.rank is 3, expected 4'],
      [outputs, f32(2, 12), {}, 'lses.rank is 2, expected 3'],
      [f32(0, 3, 4, 5), f32(0, 3, 4), {}, 'outputs.shape[0] is 0, expected at least 1 part'],
      [outputs, f32(1, 3, 4), {}, 'lses.shape[0] is 1, expected 2 (= that of outputs)'],
      [outputs, f32(2, 2, 4), {}, 'lses.shape[1] is 2, expected 3 (= that of outputs)'],
      [outputs, f32(2, 3, 3), {}, 'lses.shape[2] is 3, expected 4 (= that of outputs)'],
      [outputs, lses, { out: f32(3, 4) }, 'output.rank is 2, expected 3'],
      [outputs, lses, { out: f32(2, 4, 5) }, 'output.shape[0] is 2, expected 3 (= that of a part)'],
      [outputs, lses, { out: f32(3, 3, 5) }, 'output.shape[1] is 3, expected 4 (= that of a part)'],
      [outputs, lses, { out: f32(3, 4, 6) }, 'output.shape[2] is 6, expected 5 (= that of a part)'],
      [outputs, lses, { lse: f32(12) }, 'lse.rank is 1, expected 2'],
      [outputs, lses, { lse: f32(2, 4) }, 'lse.shape[0] is 2, expected 3 (= outputs.shape[1])'],
      [outputs, lses, { lse: f32(3, 5) }, 'lse.shape[1] is 5, expected 4 (= outputs.shape[2])'],
    ];
    for (const [badOutputs, badLses, options, message] of shapes) {
      expectError(
        () => mergeStates(badOutputs, badLses, options),
        'BL_INVALID_SHAPE',
        `mergeStates: ${message}`,
      );
    }
    expectError(
      () => mergeStates(outputs, Tensor.zeros('f16', [2, 3, 4]) as Tensor as Tensor<'f32'>),
      'BL_INVALID_DTYPE',
      'mergeStates: lses.dtype is f16, expected f32',
    );
    const memory = new Float32Array(200);
    const overlapping: [object, string][] = [
      [{ out: new Tensor('f32', memory.subarray(119, 179), [3, 4, 5]) }, 'output overlaps outputs'],
      [{ out: new Tensor('f32', memory.subarray(143), [3, 4, 5], { strides: [5, 1, 0] }) }, ''],
      [{ lse: new Tensor('f32', memory.subarray(119, 131), [3, 4]) }, 'lse overlaps outputs'],
    ];
    const inside = new Tensor('f32', memory.subarray(0, 120), [2, 3, 4, 5]);
    for (const [options, message] of overlapping) {
      if (message === '') {
        expect(() => mergeStates(inside, lses, options)).toThrow(/^mergeStates: output/);
        continue;
      }
      expectError(
        () => mergeStates(inside, lses, options),
        'BL_INVALID_ARGUMENT',
        `mergeStates: ${message}, expected separate memory`,
      );
    }
    await expect(mergeStatesAsync(outputs, f32(1, 3, 4))).rejects.toMatchObject({
      code: 'BL_INVALID_SHAPE',
    });
  });
});
