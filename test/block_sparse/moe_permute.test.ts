import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type FloatDType,
  machine,
  moePermute,
  moePermuteAsync,
  moeUnpermute,
  moeUnpermuteAsync,
  Tensor,
} from '../../lib/index.js';
import { permutation } from '../reference/block_sparse.js';
import { expectError, floatTypes, strided } from '../reference/op_checks.js';
import { firstDifference, gaussian } from '../reference/random.js';

const i32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('i32', Int32Array.from(values), shape);
const f32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('f32', Float32Array.from(values), shape);

const routing = fc
  .record({
    tokens: fc.constantFrom(0, 1, 2, 17, 40),
    topK: fc.integer({ min: 1, max: 4 }),
    experts: fc.integer({ min: 1, max: 9 }),
    hidden: fc.constantFrom(0, 1, 7, 16, 33),
    blockSize: fc.constantFrom(1, 1, 4, 16),
    seed: fc.integer({ min: 1, max: 1e6 }),
    skew: fc.constantFrom('all', 'one', 'some'),
  })
  .map((own) => {
    const random = gaussian(own.tokens * own.topK, own.seed);
    const indices = Array.from(random, (x) => {
      if (own.skew === 'one') return own.experts - 1;
      const e = Math.floor(Math.abs(x * 1000)) % (own.experts + (own.skew === 'some' ? 1 : 0));
      return e === own.experts ? -1 : e;
    });
    return { ...own, indices };
  });

describe('moePermute and moeUnpermute', () => {
  it('gather by expert in order of tokens, and bring back what they took', () => {
    fc.assert(
      fc.property(routing, fc.constantFrom<FloatDType>(...floatTypes), (own, dtype) => {
        const { tokens, topK, experts, hidden, blockSize } = own;
        const x = new Tensor<FloatDType>(dtype, Array.from(gaussian(tokens * hidden, 3)), [
          tokens,
          hidden,
        ]);
        const indices = i32(own.indices, [tokens, topK]);
        const weights = f32(gaussian(tokens * topK, own.seed + 1), [tokens, topK]);
        const expected = permutation(own.indices, experts, blockSize);
        const actual = moePermute(x, indices, { experts, blockSize });
        expect(actual.offsets.toArray()).toEqual(expected.offsets);
        expect(actual.inverse.toArray()).toEqual(expected.inverse);
        const count = expected.order.length;
        expect(Array.from(actual.order.data.slice(0, count))).toEqual(expected.order);
        expect(actual.order.data.slice(count).every((route) => route === -1)).toBe(true);
        const values = x.toArray();
        const rowsOf = (scale: (route: number) => number) =>
          Array.from(actual.order.data).flatMap((route) =>
            Array.from({ length: hidden }, (_, i) =>
              route < 0
                ? 0
                : Math.fround(
                    scale(route) * (values[Math.floor(route / topK) * hidden + i] as number),
                  ),
            ),
          );
        expect(actual.rows.toArray()).toEqual(rowsOf(() => 1));
        const weighted = moePermute(x, indices, { experts, blockSize, weights });
        const rounded = new Tensor<FloatDType>(
          dtype,
          rowsOf((route) => weights.data[route] as number),
          actual.rows.shape,
        );
        expect(weighted.rows.toArray()).toEqual(rounded.toArray());

        const out = moeUnpermute(actual.rows, actual.inverse, { weights });
        const sums = values.map((value, i) => {
          const t = Math.floor(i / hidden);
          let sum = 0;
          for (let s = t * topK; s < (t + 1) * topK; s++) {
            if (own.indices[s] === -1) continue;
            sum = Math.fround(sum + Math.fround((weights.data[s] as number) * value));
          }
          return sum;
        });
        expect(out.toArray()).toEqual(
          new Tensor<FloatDType>(dtype, sums, [tokens, hidden]).toArray(),
        );
      }),
      { numRuns: 60 },
    );
  });

  it('take strided tensors, any number of threads, every level, a worker', async () => {
    const [tokens, topK, hidden] = [24, 3, 530];
    const values = gaussian(tokens * hidden, 8);
    const x = f32(values, [tokens, hidden]);
    const indices = i32(
      Array.from({ length: tokens * topK }, (_, i) => (i * 7) % 5),
      [tokens, topK],
    );
    const weights = f32(gaussian(tokens * topK, 9), [tokens, topK]);
    const expected = moePermute(x, indices, { experts: 5, weights, threads: 1, isa: 'scalar' });
    const into = {
      rows: strided('f32', new Float32Array(72 * hidden), [72, hidden], [5, 1]),
      offsets: Tensor.zeros('i32', [6]),
      order: Tensor.zeros('i32', [72]),
      inverse: strided('i32', new Array(72).fill(0), [tokens, topK], [2, 1]),
    };
    const all = [
      ...[2, 3, 7].map((threads) => moePermute(x, indices, { experts: 5, weights, threads })),
      ...machine().isas.map((isa) => moePermute(x, indices, { experts: 5, weights, isa })),
      moePermute(strided('f32', values, [tokens, hidden], [4, 2]), indices, {
        experts: 5,
        weights,
      }),
      moePermute(x, indices, { experts: 5, weights, out: into }),
      await moePermuteAsync(x, indices, { experts: 5, weights }),
    ];
    for (const { rows, inverse, offsets } of all) {
      expect(rows.toArray()).toEqual(expected.rows.toArray());
      expect(inverse.toArray()).toEqual(expected.inverse.toArray());
      expect(offsets.toArray()).toEqual(expected.offsets.toArray());
    }
    const { rows, inverse } = expected;
    const sum = moeUnpermute(rows, inverse, { weights, threads: 1, isa: 'scalar' });
    const out = strided('f32', new Float32Array(tokens * hidden), [tokens, hidden], [3, 1]);
    const sums = [
      ...[2, 3, 7].map((threads) => moeUnpermute(rows, inverse, { weights, threads })),
      moeUnpermute(into.rows, into.inverse, { weights, out }),
      await moeUnpermuteAsync(rows, inverse, { weights }),
    ];
    for (const actual of sums) expect(actual.toArray()).toEqual(sum.toArray());
    const plain = moeUnpermute(rows, inverse);
    expect(firstDifference(plain.bytes, sum.bytes)).not.toBe(-1);
  });

  it('name what is wrong, and write nothing', () => {
    const x = f32([1, 2, 3, 4], [2, 2]);
    const indices = i32([0, 1], [2, 1]);
    const out = {
      rows: f32([7, 7], [1, 2]),
      offsets: i32([7, 7, 7], [3]),
      order: i32([7], [1]),
      inverse: i32([7, 7], [2, 1]),
    };
    const cases: [() => unknown, string, string][] = [
      [
        () => moePermute(x, i32([0, 2], [2, 1]), { experts: 2 }),
        'OUT_OF_RANGE',
        'moePermute: indices[1, 0] is 2, expected -1 to 1 (experts - 1)',
      ],
      [
        () => moePermute(x, i32([-2, 0], [2, 1]), { experts: 2 }),
        'OUT_OF_RANGE',
        'moePermute: indices[0, 0] is -2, expected -1 to 1 (experts - 1)',
      ],
      [
        () => moePermute(x, indices, { experts: 2, out }),
        'INVALID_SHAPE',
        'moePermute: rows.shape[0] is 1, expected at least 2 (routes)',
      ],
      [
        () => moePermute(x, indices, { experts: -1 }),
        'INVALID_ARGUMENT',
        'moePermute: experts is -1, expected a whole number',
      ],
      [
        () => moePermute(x, indices, { experts: 2, blockSize: 0 }),
        'INVALID_ARGUMENT',
        'moePermute: blockSize is 0, expected 1 to 65536',
      ],
      [
        () => moePermute(x, i32([0], [1, 1]), { experts: 2 }),
        'INVALID_SHAPE',
        'moePermute: indices.shape[0] is 1, expected 2 (= x.shape[0])',
      ],
      [
        () => moePermute(x, indices, { experts: 2, weights: f32([1], [1, 1]) }),
        'INVALID_SHAPE',
        'moePermute: weights.shape[0] is 1, expected 2 (= indices.shape[0])',
      ],
      [
        () => moePermute(x, indices, { experts: 2, out: { ...out, rows: x } }),
        'INVALID_SHAPE',
        'moePermute: order.shape[0] is 1, expected 2 (= rows.shape[0])',
      ],
      [
        () => moeUnpermute(x, i32([0, 2], [1, 2])),
        'OUT_OF_RANGE',
        'moeUnpermute: inverse[0, 1] is 2, expected -1 to 1 (rows.shape[0] - 1)',
      ],
      [
        () => moeUnpermute(x, indices, { weights: f32([1], [1, 1]) }),
        'INVALID_SHAPE',
        'moeUnpermute: weights.shape[0] is 1, expected 2 (= inverse.shape[0])',
      ],
      [
        () => moeUnpermute(x, indices, { out: x }),
        'INVALID_ARGUMENT',
        'moeUnpermute: out overlaps rows, expected separate memory',
      ],
    ];
    for (const [body, code, message] of cases) expectError(body, `BL_${code}`, message);
    expect(out.rows.toArray()).toEqual([7, 7]);
    expect(out.offsets.toArray()).toEqual([7, 7, 7]);
  });
});
