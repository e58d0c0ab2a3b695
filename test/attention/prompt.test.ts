// Prompts (32 rows and more of a sequence) in bf16 and in int8: against the formula in double, AMX against the specification
// of the integer steps, and what may not change a bit.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type AttentionCompute,
  type AttentionOptions,
  attention,
  decodeAttention,
  type Isa,
  KVPages,
  kvAppend,
  machine,
  type RaggedOptions,
  Tensor,
} from '../../lib/index.js';
import { attentionReference } from '../reference/attention.js';
import { isas as levels } from '../reference/op_checks.js';
import { firstDifference, gaussian, squaredError } from '../reference/random.js';

interface Shape {
  queries: number;
  keys: number;
  kvHeads: number;
  group: number;
  headDim: number;
  valueDim: number;
}
const usual: Shape = { queries: 24, keys: 700, kvHeads: 2, group: 4, headDim: 128, valueDim: 128 };

type Inputs = Record<'q' | 'k' | 'v', Tensor<'f32'>>;
type Options = AttentionOptions & RaggedOptions;

function inputsOf({ queries, keys, kvHeads, group, headDim, valueDim }: Shape, seed = 1): Inputs {
  const tensor = (shape: [number, number, number], from: number) =>
    new Tensor('f32', gaussian(shape[0] * shape[1] * shape[2], from), shape);
  return {
    q: tensor([queries, kvHeads * group, headDim], seed),
    k: tensor([keys, kvHeads, headDim], seed + 1),
    v: tensor([keys, kvHeads, valueDim], seed + 2),
  };
}

const i32 = (values: number[], shape = [values.length]) =>
  new Tensor('i32', Int32Array.from(values), shape);

const hasAmx = machine().isas.includes('amx');
const isas: Isa[] = hasAmx ? [...levels, 'amx'] : levels;
const computes: AttentionCompute[] = ['bf16', 'i8'];
/** Root of the mean squared error relative to that of the output: measured 3.4e-3 and 2.2e-2. */
const bounds: Record<string, number> = { bf16: 5e-3, i8: 3e-2 };

const relativeError = (actual: ArrayLike<number>, expected: ArrayLike<number>) => {
  const size = squaredError(expected, new Float64Array(expected.length));
  return Math.sqrt(squaredError(actual, expected) / (size || 1));
};

const results = ({ q, k, v }: Inputs, options: Options) => {
  const lse = Tensor.empty('f32', q.shape.slice(0, 2));
  return { output: attention(q, k, v, { ...options, lse }).data, lse: lse.data };
};

const shapes = fc.record({
  queries: fc.integer({ min: 8, max: 40 }),
  keys: fc.constantFrom(1, 17, 63, 128, 129, 511, 513, 640, 1100),
  kvHeads: fc.constantFrom(1, 2),
  group: fc.constantFrom(4, 5, 8),
  headDim: fc.constantFrom(32, 40, 64, 80, 128, 192),
  valueDim: fc.constantFrom(16, 31, 64, 96, 128),
});
const someOptions = fc.constantFrom<Options>(
  {},
  { causal: true },
  { causal: true, window: 70, sinkTokens: 3 },
  { window: 200 },
  { causal: true, softCap: 3 },
  { causal: true, scale: 0.05 },
);

describe('prompts', () => {
  it.each(computes)('follow the formula, %s', (compute) => {
    fc.assert(
      fc.property(shapes, someOptions, (shape, options) => {
        const keys = Math.min(shape.keys, 640);
        const small = { ...shape, keys, queries: Math.min(shape.queries, 10) };
        const inputs = inputsOf(small);
        const expected = attentionReference(inputs.q, inputs.k, inputs.v, options);
        for (const isa of isas) {
          const { output, lse } = results(inputs, { ...options, compute, isa });
          expect(relativeError(output, expected.output)).toBeLessThan(bounds[compute] as number);
          for (const [i, value] of expected.lse.entries()) {
            if (Number.isFinite(value)) {
              expect(Math.abs((lse[i] as number) - value)).toBeLessThan(
                compute === 'i8' ? 0.2 : 0.03,
              );
            } else {
              expect(lse[i]).toBe(value);
            }
          }
        }
      }),
      { numRuns: 15 },
    );
  });

  // A weight whose scaled value lies on the border of two integers may become either, and 2^x is a polynomial.
  it.skipIf(!hasAmx)('take the integer steps of their specification', () => {
    fc.assert(
      fc.property(
        shapes,
        someOptions,
        fc.constantFrom('', 'slopes', 'sinks', 'mask', 'added'),
        (shape, options, extra) => {
          const inputs = inputsOf(shape, 5);
          const heads = shape.kvHeads * shape.group;
          const own: Options = { ...options, compute: 'i8' };
          if (extra === 'slopes') own.slopes = new Tensor('f32', gaussian(heads, 7), [heads]);
          if (extra === 'sinks') own.sinks = new Tensor('f32', gaussian(heads, 8), [heads]);
          const masked = [1, shape.queries, shape.keys];
          const noise = gaussian(shape.queries * shape.keys, 9);
          if (extra === 'added') own.mask = new Tensor('f32', noise, masked);
          if (extra === 'mask') {
            own.mask = new Tensor(
              'u8',
              Uint8Array.from(noise, (x) => (x < 0.7 ? 1 : 0)),
              masked,
            );
          }
          const expected = results(inputs, { ...own, isa: 'scalar' });
          const actual = results(inputs, { ...own, isa: 'amx' });
          expect(relativeError(actual.output, expected.output)).toBeLessThan(5e-3);
          for (const [i, value] of expected.lse.entries()) {
            if (Number.isFinite(value)) expect(actual.lse[i]).toBeCloseTo(value, 1.8);
            else expect(actual.lse[i]).toBe(value);
          }
        },
      ),
      { numRuns: 20 },
    );
  });

  it('are not disturbed by what all keys have in common, i8', () => {
    const inputs = inputsOf(usual);
    for (let i = 5; i < inputs.k.data.length; i += 32)
      inputs.k.data[i] = 40 + (inputs.k.data[i] as number);
    const expected = attentionReference(inputs.q, inputs.k, inputs.v);
    for (const isa of isas) {
      const { output } = results(inputs, { compute: 'i8', isa });
      expect(relativeError(output, expected.output)).toBeLessThan(0.03);
    }
  });

  it.each(computes)('have an error that does not grow with the number of keys, %s', (compute) => {
    const errors = [512, 6000].map((keys) => {
      const inputs = inputsOf({ ...usual, queries: 8, kvHeads: 1, keys });
      const expected = attentionReference(inputs.q, inputs.k, inputs.v);
      return relativeError(results(inputs, { compute }).output, expected.output);
    });
    expect(errors[1]).toBeLessThan(1.5 * (errors[0] as number));
  });

  it.each(computes)('hold scores that rise and fall by far, %s', (compute) => {
    // Later keys are larger by factors of up to 2^60 in weight, then smaller again.
    const inputs = inputsOf({ ...usual, queries: 8, keys: 1200 });
    const { q, k } = inputs;
    for (let s = 0; s < 1200; s++) {
      const size = Math.sin(s / 150) * 40 + 1;
      for (let i = 0; i < 256; i++) k.data[s * 256 + i] = (q.data[i % 128] as number) * size * 0.05;
    }
    const expected = attentionReference(q, k, inputs.v);
    const { output } = results(inputs, { compute });
    expect(relativeError(output, expected.output)).toBeLessThan(0.15);
    expect(output.every(Number.isFinite)).toBe(true);
  });

  it.each(computes)('give the same bits on any number of threads, %s', (compute) => {
    const inputs = inputsOf({ ...usual, queries: 40, keys: 2600 });
    const expected = results(inputs, { compute, causal: true, threads: 1 });
    for (const threads of [2, 3, 7]) {
      const actual = results(inputs, { compute, causal: true, threads });
      expect(firstDifference(actual.output, expected.output)).toBe(-1);
      expect(firstDifference(actual.lse, expected.lse)).toBe(-1);
    }
  });
});

describe('a sequence of a batch', () => {
  const lengths = [
    { queries: 20, keys: 600 },
    { queries: 1, keys: 300 },
    { queries: 9, keys: 9 },
    { queries: 3, keys: 530 },
    { queries: 12, keys: 100 },
  ];
  const ends = (of: 'queries' | 'keys') => {
    const list = [0];
    for (const each of lengths) list.push((list.at(-1) as number) + each[of]);
    return list;
  };
  const [cuQueries, cuKeys] = [ends('queries'), ends('keys')];
  const all = { ...usual, queries: cuQueries.at(-1) as number, keys: cuKeys.at(-1) as number };
  const part = (x: Tensor<'f32'>, from: number, to: number) => {
    const size = (x.shape[1] as number) * (x.shape[2] as number);
    return new Tensor('f32', x.data.slice(from * size, to * size), [
      to - from,
      ...x.shape.slice(1),
    ]);
  };

  it.each(
    computes.flatMap((compute) => [false, true].map((poisoned) => [compute, poisoned] as const)),
  )(
    'has the bits it has alone, %s, with NaN among the values of others: %s',
    (compute, poisoned) => {
      const inputs = inputsOf(all);
      if (poisoned) inputs.v.data[(cuKeys[2] as number) * 256 + 7] = Number.NaN;
      const batch = { cuQueries: i32(cuQueries), cuKeys: i32(cuKeys) };
      for (const isa of isas) {
        const options: Options = { compute, isa, causal: true };
        const together = results(inputs, { ...options, ...batch });
        for (const i of lengths.keys()) {
          const [a, b] = [cuQueries[i] as number, cuQueries[i + 1] as number];
          const [c, d] = [cuKeys[i] as number, cuKeys[i + 1] as number];
          const alone = results(
            { q: part(inputs.q, a, b), k: part(inputs.k, c, d), v: part(inputs.v, c, d) },
            options,
          );
          const rows = together.output.slice(a * 1024, b * 1024);
          expect(firstDifference(rows, alone.output)).toBe(-1);
          expect(firstDifference(together.lse.slice(a * 8, b * 8), alone.lse)).toBe(-1);
          if (i !== 2) expect(rows.every(Number.isFinite)).toBe(true);
        }
      }
    },
  );

  it.each(computes)('in pages has them too, %s', (compute) => {
    const inputs = inputsOf(all);
    const pages = new KVPages({
      keyFormat: 'f16',
      pageSize: 16,
      numKvHeads: 2,
      keyDim: 128,
      numPages: 120,
    });
    const table = lengths.map(() => Array.from({ length: 40 }, () => 0));
    const slots: number[] = [];
    let next = 0;
    for (const [i, { keys }] of lengths.entries()) {
      for (let s = 0; s < keys; s++) {
        if (s % 16 === 0) (table[i] as number[])[s / 16] = next++;
        slots.push((next - 1) * 16 + (s % 16));
      }
    }
    kvAppend(inputs.k, inputs.v, i32(slots), pages);
    const run = (q: Tensor<'f32'>, rows: number[], more: { cuQueries?: Tensor<'i32'> } = {}) =>
      decodeAttention(
        q,
        [
          {
            pages,
            blockTable: i32(
              rows.flatMap((i) => table[i] as number[]),
              [rows.length, 40],
            ),
            lengths: i32(rows.map((i) => (lengths[i] as { keys: number }).keys)),
          },
        ],
        { compute, ...more },
      ).data;
    const together = run(inputs.q, [0, 1, 2, 3, 4], { cuQueries: i32(cuQueries) });
    for (const i of lengths.keys()) {
      const [a, b] = [cuQueries[i] as number, cuQueries[i + 1] as number];
      const alone = run(part(inputs.q, a, b), [i]);
      expect(firstDifference(together.slice(a * 1024, b * 1024), alone)).toBe(-1);
    }
  });

  it.each(computes)('is not touched by keys and values that it does not see, %s', (compute) => {
    const { q, k, v } = inputsOf({ ...usual, queries: 40 });
    const expected = results({ q, k, v }, { compute, window: 90, causal: true });
    // The last query's window begins at key 610, the first one's at 571.
    for (const x of [k, v]) x.data.fill(Number.NaN, 0, 300 * 256);
    const { output } = results({ q, k, v }, { compute, window: 90, causal: true });
    expect(output.every(Number.isFinite)).toBe(true);
    expect(relativeError(output, expected.output)).toBeLessThan(bounds[compute] as number);
  });

  it.each(computes)('is NaN where its query is, and 0 where it sees nothing, %s', (compute) => {
    const { q, k, v } = inputsOf({ ...usual, queries: 40, keys: 30 });
    q.data.fill(Number.NaN, 35 * 1024, 36 * 1024);
    q.data.fill(Number.NaN, 2 * 1024, 3 * 1024);
    for (const isa of isas) {
      const { output, lse } = results({ q, k, v }, { compute, causal: true, isa });
      expect(output.slice(0, 10 * 1024).every((x) => x === 0)).toBe(true);
      expect(lse.slice(0, 80).every((x) => x === Number.NEGATIVE_INFINITY)).toBe(true);
      expect(output.slice(35 * 1024, 36 * 1024).every(Number.isNaN)).toBe(true);
      expect(output.slice(36 * 1024).every(Number.isFinite)).toBe(true);
    }
  });
});
