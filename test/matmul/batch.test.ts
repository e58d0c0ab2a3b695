import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Format,
  type MatmulOptions,
  matmul,
  matmulAsync,
  pack,
  QuantizedTensor,
  Tensor,
} from '../../lib/index.js';
import { quantized } from '../quantize/cases.js';
import { gaussian } from '../reference/random.js';
import { canaries, isasHere, strided, thrown } from '../reference/views.js';
import { bytesEqual, matrixRows } from './cases.js';

/** Rows [begin, end) of b, canonical. */
function rowsOf(b: QuantizedTensor, begin: number, end: number): QuantizedTensor {
  const bytes = b.bytes.byteLength / b.rows;
  return new QuantizedTensor(b.format, b.bytes.subarray(begin * bytes, end * bytes), [
    end - begin,
    b.cols,
  ]);
}

describe('matmul: stacks of matrices', () => {
  it.each(isasHere)('equals one product after the other, bit for bit, at level %s', (isa) => {
    fc.assert(
      fc.property(
        fc.constantFrom('u4_g32', 'q8_0', 'f16', 'u1_row') as fc.Arbitrary<Format>,
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 35 }),
        fc.integer({ min: 1, max: 70 }),
        fc.integer({ min: 1, max: 3 }),
        fc.boolean(),
        fc.boolean(),
        fc.constantFrom('f32', 'i8', 'bf16') as fc.Arbitrary<'f32' | 'i8' | 'bf16'>,
        fc.integer({ min: 1, max: 1000 }),
        (format, batch, m, anyH, chunks, gated, lanes, compute, seed) => {
          const k = 32 * chunks;
          const h = matrixRows(anyH);
          const n = gated ? 2 * h : h;
          const rank = 3;
          const b = quantized(format, gaussian(batch * n * k, seed), [batch * n, k]);
          const a = strided('f32', gaussian(batch * m * k, seed + 1), [batch, m, k], 1);
          const bias = new Tensor('f32', gaussian(batch * n, seed + 2), [batch * n]);
          const rowScale = new Tensor('f32', gaussian(batch * n, seed + 3), [batch * n]);
          const residual = strided('f16', gaussian(batch * m * h, seed + 4), [batch, m, h], 1);
          const down = new Tensor('f32', gaussian(batch * rank * k, seed + 5), [batch, rank, k]);
          const up = new Tensor('f32', gaussian(batch * n * rank, seed + 6), [batch, n, rank]);
          const out = strided('bf16', new Float32Array(batch * m * h), [batch, m, h], 1);
          const same = { isa, compute, activation: gated ? 'swiglu' : 'relu' } as const;
          matmul(a, lanes ? pack(b, { layout: 'lanes16' }) : b, {
            ...same,
            batch,
            bias,
            rowScale,
            residual,
            out,
            lowRank: { down, up, scale: 2 },
          });
          const parts = Array.from({ length: batch }, (_, i) => {
            const own = <D extends 'f32' | 'f16'>(t: Tensor<D>): Tensor<D> =>
              new Tensor<D>(t.dtype, t.slice(i, i + 1).bytes, t.shape.slice(1), {
                strides: t.strides.slice(1),
              });
            const c = matmul(own(a), rowsOf(b, i * n, (i + 1) * n), {
              ...same,
              bias: bias.slice(i * n, (i + 1) * n),
              rowScale: rowScale.slice(i * n, (i + 1) * n),
              residual: own(residual),
              out: Tensor.zeros('bf16', [m, h]),
              lowRank: { down: own(down), up: own(up), scale: 2 },
            });
            return c.toArray();
          });
          expect(out.toArray()).toEqual(parts.flat());
          expect(canaries(out).every((value) => value === -77)).toBe(true);
        },
      ),
      { numRuns: 40 },
    );
  });

  it.each(isasHere)('takes packed matrices and halves of any N at level %s', (isa) => {
    for (const [batch, anyH, gated] of [
      [1, 17, true],
      [1, 5, true],
      [1, 150, true],
      [3, 33, false],
      [9, 1, true],
      [3, 3, true],
      [2, 200, true],
    ] as const) {
      const h = matrixRows(anyH);
      const n = gated ? 2 * h : h;
      for (const [m, algorithm] of [
        [1, 'dequant'],
        [3, 'lut'],
        [18, 'tile'],
      ] as const) {
        const a = new Tensor('f32', gaussian(batch * m * 64, h), [batch, m, 64]);
        const b = quantized('u2_g32', gaussian(batch * n * 64, n), [batch * n, 64]);
        const activation = gated ? 'swiglu' : 'none';
        const options = { isa, batch, compute: 'i8', algorithm, activation } as const;
        const want = matmul(a, b, options);
        for (const threads of [1, 3]) {
          const c = matmul(a, pack(b), { ...options, threads });
          expect(bytesEqual(c, want), `${batch} ${h} ${algorithm}`).toBe(true);
        }
      }
    }
  });

  it('gives the same bits for any threads, and async', async () => {
    const [batch, m, n, k] = [3, 2, 48, 64];
    const a = new Tensor('f32', gaussian(batch * m * k, 1), [batch, m, k]);
    const b = quantized('q4_0', gaussian(batch * n * k, 2), [batch * n, k]);
    const once = matmul(a, b, { batch, threads: 1 });
    expect(once.shape).toEqual([batch, m, n]);
    for (const threads of [2, 3, 7]) {
      expect(bytesEqual(matmul(a, b, { batch, threads }), once)).toBe(true);
    }
    expect(bytesEqual(await matmulAsync(a, b, { batch }), once)).toBe(true);
    const single = matmul(new Tensor('f32', a.data.slice(0, batch * k), [batch, k]), b, { batch });
    expect(single.shape).toEqual([batch, n]);
  });

  const a = Tensor.zeros('f32', [2, 3, 32]);
  const b = quantized('q4_0', gaussian(10 * 32), [10, 32]);
  it.each<[string, string, Tensor<'f32'>, QuantizedTensor, MatmulOptions]>([
    ['BL_INVALID_SHAPE', 'matmul: a.shape[0] is 2, expected 5 (= batch)', a, b, { batch: 5 }],
    [
      'BL_INVALID_SHAPE',
      'matmul: a.rank is 1, expected at least 2 with batch',
      Tensor.zeros('f32', [32]),
      b,
      { batch: 1 },
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: b.rows is 10, expected a multiple of 4 (batch * gate and up)',
      a,
      b,
      { batch: 2, activation: 'swiglu' },
    ],
    [
      'BL_INVALID_SHAPE',
      'matmul: out.shape[2] is 10, expected 5 (= b.rows / batch)',
      a,
      b,
      { batch: 2, out: Tensor.zeros('f32', [2, 3, 10]) },
    ],
    ...[0, -1, 1.5, 'two', null].map(
      (batch): [string, string, Tensor<'f32'>, QuantizedTensor, MatmulOptions] => [
        'BL_INVALID_ARGUMENT',
        `matmul: batch is ${JSON.stringify(batch)}, expected a whole number of at least 1`,
        a,
        b,
        { batch: batch as number },
      ],
    ),
    [
      'BL_UNSUPPORTED',
      'matmul: adapters.ids is given with batch, where each matrix has its adapter',
      a,
      b,
      {
        batch: 2,
        adapters: {
          down: Tensor.zeros('f32', [2, 1, 32]),
          up: Tensor.zeros('f32', [2, 5, 1]),
          ids: Tensor.zeros('i32', [6]),
        },
      },
    ],
  ])('refuses with %s: %s', (code, message, x, weights, options) => {
    const out = options.out ?? Tensor.zeros('f32', [2, 3, 5]);
    expect(thrown(() => matmul(x, weights, { ...options, out }))).toMatchObject({ code, message });
  });
});
