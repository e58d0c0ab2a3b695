import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type FloatDType, softmax, softmaxAsync, Tensor } from '../../lib/index.js';
import { byRow } from '../reference/norm.js';
import { gaussian } from '../reference/random.js';
import { softmaxRow } from '../reference/softmax.js';
import {
  bits,
  canaries,
  expectClose,
  floatTypes,
  isasHere,
  strided,
  thrown,
} from '../reference/views.js';

type Float = Tensor<FloatDType>;
const infinity = Number.POSITIVE_INFINITY;

/** Relative (2 |t| + 48) 2^-24, t = ln(result / largest result): native/ops/softmax/kernel.h. */
function check(x: Float, scale: number, y: Float): void {
  const length = x.shape[x.rank - 1] as number;
  const expected = byRow(x.toArray(), length, (row) => softmaxRow(row, scale));
  const bounds = byRow(expected, length, (row) => {
    const largest = Math.max(...row);
    return row.map((value) =>
      value === 0 ? 0 : (2 * Math.log(largest / value) + 48) * value * 2 ** -24,
    );
  });
  expectClose(y.toArray(), expected, (i) => (bounds[i] as number) + 2 ** -149, y.dtype);
}

describe('softmax', () => {
  it.each(isasHere)('%s: equals the reference for any shape, dtype, stride, scale', (isa) => {
    const dtype = fc.constantFrom(...floatTypes);
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }),
        fc.oneof(fc.integer({ min: 0, max: 70 }), fc.constantFrom(255, 257, 1025, 3000)),
        fc.tuple(dtype, dtype),
        fc.tuple(fc.integer({ min: 0, max: 2 }), fc.integer({ min: 0, max: 2 })),
        fc.constantFrom(1, 0.125, -1, 7, -0.5),
        fc.constantFrom(1, 20),
        fc.integer({ min: 1, max: 99 }),
        (outer, length, [xType, outType], [xGap, outGap], scale, spread, seed) => {
          const shape = [...outer, length];
          const size = shape.reduce((product, n) => product * n, 1);
          const x = strided(xType, gaussian(size, seed, spread), shape, xGap);
          const out = strided(outType, new Float32Array(size), shape, outGap);
          expect(softmax(x, { isa, scale, out })).toBe(out);
          if (size > 0) check(x, scale, out);
          expect(canaries(out).every((value) => value === -77)).toBe(true);
        },
      ),
      { numRuns: 30 },
    );
  });

  it.each(isasHere)('%s: masks, infinities, NaN, huge values, subnormal results', (isa) => {
    const rows: number[][] = [
      [-infinity, 1, 2, -infinity],
      [-infinity, -infinity],
      [infinity, 1],
      [infinity, -infinity],
      [1, Number.NaN, 2],
      [Number.NaN],
      [3e38, -3e38, 3e38],
      [0, -0, 2 ** -149, 1e-40],
      [0, -80, -88, -95, -100, -103, -104, -110, -1000],
      [5],
    ];
    for (const row of rows) {
      for (const padding of [0, 17]) {
        const values = [...row, ...new Array<number>(padding).fill(row[0] as number)];
        const x = new Tensor('f32', values, [values.length]);
        check(x, 1, softmax(x, { isa }));
        // With the sign of scale and x turned round the result is the same.
        const turned = new Tensor(
          'f32',
          values.map((value) => -value),
          [values.length],
        );
        expect(softmax(turned, { isa, scale: -1 }).toArray()).toEqual(
          softmax(x, { isa }).toArray(),
        );
      }
    }
  });

  it.each(isasHere)('%s: a long row sums to 1', (isa) => {
    const x = new Tensor('f32', gaussian(150_001, 2), [150_001]);
    const y = softmax(x, { isa }).toArray();
    expect(Math.abs(y.reduce((sum, value) => sum + value, 0) - 1)).toBeLessThan(1e-6);
  });

  it('works in place and at odd addresses', () => {
    for (const dtype of floatTypes) {
      const make = (): Float => new Tensor(dtype, [...gaussian(3003, 5)], [3, 1001]);
      const expected = softmax(make(), { out: Tensor.zeros(dtype, [3, 1001]) }).toArray();
      const x = make();
      expect(softmax(x, { out: x }).toArray()).toEqual(expected);
      const memory = new Uint8Array(x.bytes.byteLength + 1);
      memory.set(make().bytes, 1);
      const odd = new Tensor(dtype, memory.subarray(1), [3, 1001]);
      expect(softmax(odd, { out: odd }).toArray()).toEqual(expected);
    }
  });

  it('gives the same bits for any number of threads, and async', async () => {
    const x = new Tensor('f32', gaussian(93 * 1001, 6), [93, 1001]);
    const one = softmax(x, { threads: 1 });
    check(x, 1, one);
    for (const threads of [2, 3, 7])
      expect(bits(softmax(x, { threads })).equals(bits(one))).toBe(true);
    expect(bits(await softmaxAsync(x)).equals(bits(one))).toBe(true);
  });

  it('reports what is wrong before anything is written', async () => {
    const x = new Tensor('f32', [1, 2, 3, 4], [2, 2]);
    const out = Tensor.zeros('f32', [2, 2]);
    const memory = Float32Array.of(1, 2, 3);
    const part = new Tensor('f32', memory.subarray(1), [2]);
    const wrong: [() => unknown, string, string][] = [
      [
        () => softmax(x, { out, scale: 0 }),
        'BL_INVALID_ARGUMENT',
        'scale is 0, expected a finite number other than 0',
      ],
      [
        () => softmax(x, { out, scale: infinity }),
        'BL_INVALID_ARGUMENT',
        'scale is inf, expected a finite number other than 0',
      ],
      [
        () => softmax(x, { out: Tensor.zeros('f32', [4]) }),
        'BL_INVALID_SHAPE',
        'output.rank is 1, expected 2 (= x.rank)',
      ],
      [() => softmax(Tensor.zeros('f32', [])), 'BL_INVALID_SHAPE', 'x.rank is 0, expected 1 to 6'],
      [
        () => softmax(Tensor.zeros('u8', [1]) as unknown as Float),
        'BL_INVALID_DTYPE',
        'x.dtype is u8, expected f32 or f16 or bf16',
      ],
      [
        () => softmax(new Tensor('f32', memory, [2]), { out: part }),
        'BL_INVALID_ARGUMENT',
        'output overlaps x in part, expected the same view or separate memory',
      ],
    ];
    for (const [body, code, message] of wrong) {
      expect(thrown(body)).toMatchObject({ code, message: `softmax: ${message}` });
    }
    expect([...out.toArray(), ...memory]).toEqual([0, 0, 0, 0, 1, 2, 3]);
    await expect(softmaxAsync(x, { scale: 0 })).rejects.toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
    });
  });
});
