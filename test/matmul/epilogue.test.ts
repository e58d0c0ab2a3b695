import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Activation,
  add,
  type FloatDType,
  type Format,
  gelu,
  type MatmulOptions,
  matmul,
  matmulAsync,
  pack,
  silu,
  swiglu,
  Tensor,
} from '../../lib/index.js';
import { quantized } from '../quantize/cases.js';
import { type ReferenceOptions, referenceOutputs } from '../reference/matmul.js';
import { gaussian } from '../reference/random.js';
import { canaries, floatTypes, isasHere, strided, thrown } from '../reference/views.js';
import { bytesEqual, decoded, expectOutputs } from './cases.js';

const activations: Activation[] = ['none', 'silu', 'gelu', 'geluTanh', 'relu', 'swiglu', 'geglu'];
const isGated = (activation: Activation): boolean =>
  activation === 'swiglu' || activation === 'geglu';
const formats: Format[] = ['q8_0', 'u4_g32', 'i3_row', 'f16', 'nf4_g64', 'q4_k'];
const f32 = (values: Float32Array, shape: number[]): Tensor<'f32'> =>
  new Tensor('f32', values, shape);

describe('matmul: epilogue', () => {
  it.each(isasHere)('equals the float64 reference for any options at level %s', (isa) => {
    fc.assert(
      fc.property(
        fc.record({
          format: fc.constantFrom(...formats),
          activation: fc.constantFrom(...activations),
          m: fc.integer({ min: 1, max: 35 }),
          half: fc.integer({ min: 1, max: 37 }),
          anyK: fc.integer({ min: 1, max: 130 }),
          out: fc.constantFrom(...floatTypes),
          other: fc.constantFrom(...floatTypes),
          gap: fc.integer({ min: 0, max: 2 }),
          seed: fc.integer({ min: 1, max: 1000 }),
          given: fc.integer({ min: 0, max: 63 }),
          lanes: fc.boolean(),
        }),
        ({ format, activation, m, half, anyK, out, other, gap, seed, given, lanes }) => {
          const block = { q8_0: 32, q4_k: 256 }[format as string] ?? 1;
          const k = Math.ceil(anyK / block) * block;
          const gated = isGated(activation);
          const h = gated && lanes ? 16 * Math.ceil(half / 16) : half;
          const n = gated ? 2 * h : h;
          const values = gaussian(m * k, seed);
          const b = quantized(format, gaussian(n * k, seed + 1, 0.3), [n, k]);
          const o: ReferenceOptions = { activation };
          const options: MatmulOptions<FloatDType> = { isa, activation };
          const has = (bit: number): boolean => ((given >> bit) & 1) !== 0;
          if (has(0)) {
            const rowScale = gaussian(n, seed + 2);
            Object.assign(o, { rowScale });
            Object.assign(options, { rowScale: f32(rowScale, [n]) });
          }
          if (has(1)) {
            o.scale = -0.75;
            options.scale = -0.75;
          }
          if (has(2)) {
            const addend = strided(other, gaussian(m * n, seed + 3), [m, n], gap);
            o.addend = addend.toArray();
            options.addend = addend;
          }
          if (has(3)) {
            o.bias = gaussian(n, seed + 4);
            options.bias = f32(o.bias as Float32Array, [n]);
          }
          const c = strided(out, gaussian(m * h, seed + 5), [m, h], gap);
          if (has(4)) {
            const residual = has(5) ? c : strided(other, gaussian(m * h, seed + 6), [m, h], gap);
            o.residual = residual.toArray();
            options.residual = residual;
          }
          const weights = lanes ? pack(b, { layout: 'lanes16' }) : b;
          const a = strided(other, values, [m, k], gap);
          expect(matmul(a, weights, { ...options, out: c })).toBe(c);
          const seen = a.toArray();
          const what = JSON.stringify({
            format,
            activation,
            m,
            h,
            k,
            out,
            other,
            gap,
            given,
            lanes,
          });
          expectOutputs(c, referenceOutputs(seen, seen, decoded(b), m, n, o), what);
          expect(canaries(c).every((value) => value === -77)).toBe(true);
        },
      ),
      { numRuns: 60 },
    );
  });

  it.each(isasHere)('gives the bits of the separate operators at level %s', (isa) => {
    const [m, n, k] = [5, 96, 64];
    const a = f32(gaussian(m * k, 1), [m, k]);
    const b = quantized('q4_0', gaussian(n * k, 2), [n, k]);
    const plain = matmul(a, b, { isa });
    expect(bytesEqual(matmul(a, b, { isa, activation: 'silu' }), silu(plain, { isa }))).toBe(true);
    expect(bytesEqual(matmul(a, b, { isa, activation: 'gelu' }), gelu(plain, { isa }))).toBe(true);
    const tanh = gelu(plain, { isa, approximation: 'tanh' });
    expect(bytesEqual(matmul(a, b, { isa, activation: 'geluTanh' }), tanh)).toBe(true);
    const halves = [0, 48].map((from) => {
      const rows = Array.from({ length: m }, (_, row) =>
        plain.toArray().slice(row * n + from, row * n + from + 48),
      );
      return new Tensor('f32', rows.flat(), [m, 48]);
    }) as [Tensor<'f32'>, Tensor<'f32'>];
    const gated = swiglu(...halves, { isa });
    expect(bytesEqual(matmul(a, b, { isa, activation: 'swiglu' }), gated)).toBe(true);
    const residual = f32(gaussian(m * 48, 3), [m, 48]);
    expect(
      bytesEqual(
        matmul(a, b, { isa, activation: 'swiglu', residual }),
        add(gated, residual, { isa }),
      ),
    ).toBe(true);
  });

  it.each(isasHere)('does not depend on threads, layout or the other rows at level %s', (isa) => {
    const [m, h, k] = [33, 80, 64];
    const n = 2 * h;
    const a = f32(gaussian(m * k, 4), [m, k]);
    const b = quantized('u4_g32', gaussian(n * k, 5), [n, k]);
    const residual = f32(gaussian(m * h, 6), [m, h]);
    const options = { isa, activation: 'swiglu', compute: 'i8', algorithm: 'dequant' } as const;
    const once = matmul(a, b, { ...options, residual, threads: 1 });
    for (const threads of [2, 3, 7]) {
      expect(bytesEqual(matmul(a, b, { ...options, residual, threads }), once)).toBe(true);
    }
    expect(
      bytesEqual(matmul(a, pack(b, { layout: 'lanes16' }), { ...options, residual }), once),
    ).toBe(true);
    const last = matmul(a.slice(m - 1, m), b, { ...options, residual: residual.slice(m - 1, m) });
    expect([...last.data]).toEqual([...once.data.subarray((m - 1) * h)]);
  });

  it.each(isasHere)(
    'writes i8 that the next product reads as its own rounding, at level %s',
    (isa) => {
      for (const [m, n] of [
        [1, 32],
        [3, 96],
        [5, 45],
        [2, 150],
      ] as const) {
        const k = 64;
        const a = f32(gaussian(m * k, 7), [m, k]);
        const b = quantized('q8_0', gaussian(n * k, 8), [n, k]);
        const next = quantized('u4_row', gaussian(24 * n, 9), [24, n]);
        for (const weights of [b, pack(b, { layout: 'lanes16' })]) {
          const float = matmul(a, weights, { isa });
          const codes = strided('f32', new Float32Array(m * n), [m, n], 0); // the same shape, to compare strides
          expect(codes.strides).toEqual(float.strides);
          const out = new Tensor('i8', new Int8Array(m * (n + 3)).fill(99), [m, n], {
            strides: [n + 3, 1],
          });
          const cScales = Tensor.zeros('f32', [m, Math.ceil(n / 32)]);
          matmul(a, weights, { isa, out, cScales });
          const expected = matmul(float, next, { isa, compute: 'i8', algorithm: 'dequant' });
          expect(
            bytesEqual(
              matmul(out, next, { isa, aScales: cScales, algorithm: 'dequant' }),
              expected,
            ),
          ).toBe(true);
          const rest = Array.from({ length: m }, (_, i) => [
            ...out.data.subarray(i * (n + 3) + n, (i + 1) * (n + 3)),
          ]);
          expect(
            rest
              .slice(0, -1)
              .flat()
              .every((code) => code === 99),
          ).toBe(true);
        }
      }
    },
  );

  it('quantizes outputs with a fixed scale, and what is not finite', () => {
    const b = quantized('f32', Float32Array.of(1, 0, 0, 1), [2, 2]);
    for (const isa of isasHere) {
      // In rows of their own: devices take a row's numbers by its largest.
      const run = (x: number, y: number, cScale: number): number[] => {
        const out = Tensor.zeros('i8', [2, 2]);
        matmul(new Tensor('f32', [x, 0, 0, y], [2, 2]), b, { isa, cScale, out });
        return [out.data[0] as number, out.data[3] as number];
      };
      expect(run(1.5, -2.5, 1)).toEqual([2, -2]);
      expect(run(0.5, 1e30, 0.25)).toEqual([2, 127]);
      expect(run(-1e30, 31.4, 0.25)).toEqual([-127, 126]);
      expect(run(Number.NaN, 0, 1)[0]).toBe(0);
      const cScales = Tensor.zeros('f32', [1, 1]);
      const x = new Tensor('f32', [Number.POSITIVE_INFINITY, 1], [1, 2]);
      const out = matmul(x, b, { isa, cScales, out: new Tensor('i8', [5, 5], [1, 2]) });
      expect(out.toArray()).toEqual([0, 0]);
      expect(cScales.toArray()).toEqual([Number.NaN]);
      matmul(new Tensor('f32', [0, 1e-42], [1, 2]), b, { isa, cScales, out });
      expect([out.toArray(), cScales.toArray()]).toEqual([[0, 0], [0]]);
    }
  });

  it('accumulates in place and gives the same async', async () => {
    const [m, n, k] = [4, 40, 32];
    const a = f32(gaussian(m * k, 10), [m, k]);
    const b = quantized('q4_0', gaussian(n * k, 11), [n, k]);
    const once = matmul(a, b);
    const c = Tensor.zeros('f32', [m, n]);
    for (let i = 0; i < 3; i++) matmul(a, b, { out: c, residual: c });
    expect([...c.data]).toEqual([...once.data].map((x) => Math.fround(Math.fround(x + x) + x)));
    const options = {
      activation: 'silu',
      rowScale: f32(gaussian(n, 12), [n]),
      residual: once,
    } as const;
    expect(bytesEqual(await matmulAsync(a, b, options), matmul(a, b, options))).toBe(true);
  });

  it('takes empty outputs', () => {
    const b = quantized('q4_0', new Float32Array(0), [0, 32]);
    const a = Tensor.zeros('f32', [2, 32]);
    expect(matmul(a, b, { activation: 'swiglu' }).shape).toEqual([2, 0]);
    expect(matmul(a, b, { out: Tensor.zeros('i8', [2, 0]), cScale: 1 }).shape).toEqual([2, 0]);
    const none = quantized('f32', new Float32Array(0), [4, 0]);
    const bias = new Tensor('f32', [1, 2, 3, -4], [4]);
    expect(
      matmul(Tensor.zeros('f32', [1, 0]), none, { bias, activation: 'relu' }).toArray(),
    ).toEqual([1, 2, 3, 0]);
  });

  const a = Tensor.zeros('f32', [2, 32]);
  const b = quantized('q4_0', gaussian(6 * 32), [6, 32]);
  const shared = new Float32Array(40);
  const i8 = Tensor.zeros('i8', [2, 6]);
  it.each<[string, string, MatmulOptions<never> | MatmulOptions<FloatDType> | MatmulOptions<'i8'>]>(
    [
      [
        'BL_INVALID_ARGUMENT',
        'matmul: activation is "tanh", expected none, silu, gelu, geluTanh, relu, swiglu or geglu',
        { activation: 'tanh' as never },
      ],
      [
        'BL_INVALID_ARGUMENT',
        'matmul: scale is 0, expected a finite number other than 0',
        { scale: 0 },
      ],
      ['BL_NON_FINITE', 'matmul: scale is inf, expected a finite number', { scale: 1e300 }],
      [
        'BL_INVALID_SHAPE',
        'matmul: rowScale.shape[0] is 5, expected 6 (= b.rows)',
        { rowScale: Tensor.zeros('f32', [5]) },
      ],
      [
        'BL_INVALID_SHAPE',
        "matmul: residual.shape[1] is 5, expected 6 (= out's columns)",
        { residual: Tensor.zeros('f32', [2, 5]) },
      ],
      [
        'BL_INVALID_SHAPE',
        'matmul: residual.rank is 1, expected 2 (= out.rank)',
        { residual: Tensor.zeros('f32', [12]) },
      ],
      [
        'BL_INVALID_DTYPE',
        'matmul: residual.dtype is i32, expected f32 or f16 or bf16',
        { residual: Tensor.zeros('i32', [2, 6]) as never },
      ],
      [
        'BL_INVALID_SHAPE',
        'matmul: addend.shape[1] is 3, expected 6 (= b.rows)',
        { activation: 'swiglu', addend: Tensor.zeros('f32', [2, 3]) },
      ],
      [
        'BL_INVALID_SHAPE',
        'matmul: out.shape[1] is 6, expected 3 (= b.rows / 2)',
        { activation: 'geglu', out: Tensor.zeros('f32', [2, 6]) },
      ],
      [
        'BL_INVALID_ARGUMENT',
        'matmul: out overlaps residual in part, expected the same view or separate memory',
        {
          out: new Tensor('f32', shared.subarray(0, 12), [2, 6]),
          residual: new Tensor('f32', shared.subarray(2, 14), [2, 6]),
        },
      ],
      [
        'BL_INVALID_ARGUMENT',
        'matmul: out overlaps rowScale, expected separate memory',
        {
          out: new Tensor('f32', shared.subarray(0, 12), [2, 6]),
          rowScale: new Tensor('f32', shared.subarray(6, 12), [6]),
        },
      ],
      [
        'BL_INVALID_ARGUMENT',
        'matmul: cScale is 0, expected a normal number above 0 for out of i8 without cScales',
        { out: i8 },
      ],
      ['BL_INVALID_ARGUMENT', 'matmul: cScale is given, expected out of i8', { cScale: 1 }],
      [
        'BL_INVALID_ARGUMENT',
        'matmul: cScales is given, expected out of i8',
        { cScales: Tensor.zeros('f32', [2, 1]) },
      ],
      [
        'BL_INVALID_ARGUMENT',
        'matmul: cScale and cScales are given, expected one of them',
        { out: i8, cScale: 1, cScales: Tensor.zeros('f32', [2, 1]) },
      ],
      [
        'BL_INVALID_SHAPE',
        "matmul: cScales.shape[1] is 2, expected 1 (= ceil(out's columns / 32))",
        { out: i8, cScales: Tensor.zeros('f32', [2, 2]) },
      ],
    ],
  )('refuses with %s: %s', (code, message, options) => {
    expect(thrown(() => matmul(a, b, options as MatmulOptions<FloatDType>))).toMatchObject({
      code,
      message,
    });
  });

  it('refuses halves that are not whole', () => {
    const odd = quantized('q4_0', gaussian(5 * 32), [5, 32]);
    expect(
      thrown(() => matmul(a, odd, { activation: 'swiglu', out: Tensor.zeros('f32', [2, 2]) })),
    ).toMatchObject({
      code: 'BL_INVALID_SHAPE',
      message: 'matmul: b.rows is 5, expected a multiple of 2 (gate and up)',
    });
  });
});
