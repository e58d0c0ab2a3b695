import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Format, matmul, matmulAsync, Tensor } from '../../lib/index.js';
import { quantized } from '../quantize/cases.js';
import { nearestE4m3, referenceOutputs, roundE4m3 } from '../reference/matmul.js';
import { gaussian } from '../reference/random.js';
import { floatTypes, isasHere, strided } from '../reference/views.js';
import { bytesEqual, decoded, expectOutputs } from './cases.js';

const f32 = (values: Float32Array | number[], shape: number[]): Tensor<'f32'> =>
  new Tensor('f32', values, shape);
const formats: Format[] = ['u4_g32', 'mxfp4', 'e4m3_g32', 'q8_0', 'nf4_g64', 'f16', 'i3_row'];

describe("matmul: compute 'e4m3'", () => {
  it.each(isasHere)('equals the float64 reference at level %s', (isa) => {
    fc.assert(
      fc.property(
        fc.record({
          format: fc.constantFrom(...formats),
          m: fc.integer({ min: 1, max: 20 }),
          n: fc.integer({ min: 1, max: 40 }),
          anyK: fc.integer({ min: 1, max: 130 }),
          from: fc.constantFrom(...floatTypes),
          group: fc.constantFrom(32, 'row', undefined) as fc.Arbitrary<32 | 'row' | undefined>,
          exponent: fc.integer({ min: -12, max: 12 }),
          scaled: fc.boolean(),
          seed: fc.integer({ min: 1, max: 1000 }),
        }),
        ({ format, m, n, anyK, from, group, exponent, scaled, seed }) => {
          const k = format === 'mxfp4' || format === 'q8_0' ? Math.ceil(anyK / 32) * 32 : anyK;
          const b = quantized(format, gaussian(n * k, seed + 1, 0.3), [n, k]);
          const a = strided(from, gaussian(m * k, seed, 2 ** exponent), [m, k], 1);
          const seen = a.toArray();
          const columns = gaussian(k, seed + 2);
          const given = scaled
            ? seen.map((x, i) => Math.fround(x * (columns[i % k] as number)))
            : seen;
          const options = {
            ...(scaled ? { columnScale: f32(columns, [k]) } : {}),
            ...(group === undefined ? {} : { activationGroup: group }),
          };
          const c = matmul(a, b, { ...options, isa, compute: 'e4m3' });
          const rounded = roundE4m3(given, k, group ?? 'row');
          const what = JSON.stringify({ format, m, n, k, from, group, exponent, scaled, seed });
          expectOutputs(c, referenceOutputs(rounded, seen, decoded(b), m, n, {}), what);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('rounds every value between neighbours of e4m3 to the nearest, ties to even', () => {
    // A row of the identity gives the activation itself; 448 first makes every scale 1.
    const identity = Array.from({ length: 32 * 32 }, (_, i) => (i % 33 === 0 ? 1 : 0));
    const b = quantized('f16', Float32Array.from(identity), [32, 32]);
    const numbers: number[] = [];
    for (let code = 0; code < 0x7e; code++) {
      const at = (c: number): number =>
        c < 8 ? c * 2 ** -9 : (1 + (c % 8) / 8) * 2 ** ((c >> 3) - 7);
      for (const part of [0, 0.25, 0.5, 0.75]) {
        numbers.push(at(code) + part * (at(code + 1) - at(code)));
      }
    }
    for (let begin = 0; begin < numbers.length; begin += 31) {
      const some = numbers.slice(begin, begin + 31).map((x, i) => (i % 2 === 0 ? x : -x));
      const row = [448, ...some, ...Array<number>(31 - some.length).fill(0)];
      for (const activationGroup of [32, 'row'] as const) {
        const c = matmul(f32(row, [1, 32]), b, { compute: 'e4m3', activationGroup });
        expect(c.toArray().map((x) => x + 0)).toEqual(row.map((x) => nearestE4m3(x) + 0));
      }
    }
  });

  it('is exact for the largest of 32, of any magnitude that a scale reaches', () => {
    const b = quantized('f16', Float32Array.of(1), [1, 1]);
    for (let exponent = -117; exponent < 120; exponent += 3) {
      for (const part of [1, 1.125, 1.75, 1.875]) {
        const x = part * 2 ** exponent;
        const options = { compute: 'e4m3', activationGroup: 32 } as const;
        expect(matmul(f32([x], [1, 1]), b, options).toArray()).toEqual([x]);
      }
    }
  });

  it('makes rows, or groups, with a value that is not finite NaN, and no others', () => {
    const [m, n, k] = [3, 5, 64];
    const b = quantized('u4_g32', gaussian(n * k, 2), [n, k]);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const values = gaussian(m * k, 1);
      const clean = matmul(f32(values, [m, k]), b, { compute: 'e4m3' }).toArray();
      values[k + 40] = bad;
      for (const activationGroup of [32, 'row'] as const) {
        const c = matmul(f32(values, [m, k]), b, { compute: 'e4m3', activationGroup }).toArray();
        expect(c.map(Number.isNaN)).toEqual(clean.map((_, i) => Math.floor(i / n) === 1));
      }
    }
    const zeros = matmul(Tensor.zeros('f32', [2, k]), b, { compute: 'e4m3' });
    expect(zeros.toArray().every((x) => x === 0)).toBe(true);
  });

  it('has the same bits for any number of threads, and async', async () => {
    const [m, n, k] = [9, 70, 512];
    const a = f32(gaussian(m * k, 1), [m, k]);
    const b = quantized('u4_g128', gaussian(n * k, 2), [n, k]);
    const options = { compute: 'e4m3', activationGroup: 32 } as const;
    const first = matmul(a, b, { ...options, threads: 1 });
    for (const threads of [2, 3, 7]) {
      expect(bytesEqual(matmul(a, b, { ...options, threads }), first)).toBe(true);
    }
    expect(bytesEqual(await matmulAsync(a, b, options), first)).toBe(true);
  });
});
