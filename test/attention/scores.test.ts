// What attention says of its weights: against the formula in double, on rows and in pages of every format.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type AttentionScores,
  attention,
  attentionAsync,
  decodeAttention,
  type FloatDType,
  machine,
  Tensor,
} from '../../lib/index.js';
import { attentionReference, type Sequence, sequencesOf } from '../reference/attention.js';
import {
  inputsOf,
  type Options,
  optionsOf,
  plans,
  ropePlans,
  workOf,
} from '../reference/attention_cases.js';
import { worst } from '../reference/op_checks.js';
import { kvFormatNames, paged } from '../reference/paged_attention.js';
import { firstDifference, gaussian } from '../reference/random.js';

type Written = Required<Omit<AttentionScores, 'queries'>>;
const levels = machine().isas;
const names = ['sums', 'squares', 'entropy', 'variance'] as const;

function room(sequences: number, heads: number, keys: number): Written {
  const make = (shape: number[]) =>
    new Tensor('f32', new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(7), shape);
  return {
    sums: make([sequences, heads, keys]),
    squares: make([sequences, heads, keys]),
    entropy: make([sequences, heads]),
    variance: make([sequences, heads]),
  };
}

/** The formulas of bitloom_attention.h on weights [heads][queries][longest] in double. */
function formulas(
  weights: Float64Array,
  sequences: readonly Sequence[],
  heads: number,
  queries: number,
  longest: number,
  last: number,
): Record<(typeof names)[number], number[]> {
  const all = { sums: [], squares: [], entropy: [], variance: [] } as Record<string, number[]>;
  for (const { query, queries: n, keys: m } of sequences) {
    const observed = last === 0 ? n : Math.min(last, n);
    for (let h = 0; h < heads; h++) {
      let entropy = 0;
      let variance = 0;
      for (let s = 0; s < longest; s++) {
        const column = Array.from(
          { length: observed },
          (_, i) => weights[(h * queries + query + n - observed + i) * longest + s] as number,
        );
        const sum = column.reduce((a, b) => a + b, 0);
        const mean = observed === 0 ? 0 : sum / observed;
        all.sums?.push(sum);
        all.squares?.push(column.reduce((a, b) => a + b * b, 0));
        for (const p of column) if (p > 0) entropy -= p * Math.log(p);
        if (s < m) variance += column.reduce((a, b) => a + (b - mean) ** 2, 0);
      }
      const rows = Math.max(observed, 1);
      all.entropy?.push(entropy / rows);
      all.variance?.push(variance / rows / Math.max(m, 1));
    }
  }
  return all;
}

const lastCounts = fc.constantFrom(0, 1, 4, 40);

describe('scores of attention', () => {
  it.each(levels)('are sums of the weights of the formula, %s', (isa) => {
    fc.assert(
      fc.property(
        fc
          .oneof({ weight: 3, arbitrary: plans }, { weight: 1, arbitrary: ropePlans })
          .filter((plan) => workOf(plan) < (isa === 'scalar' ? 2e5 : 2e6)),
        lastCounts,
        (plan, last) => {
          const { q, k, v } = inputsOf(plan);
          const options: Options = optionsOf(plan);
          const [queries, heads] = q.shape as [number, number];
          const sequences = sequencesOf(q, k, options);
          const longest = Math.max(0, ...sequences.map(({ keys }) => keys));
          const written = room(sequences.length, heads, longest);
          // lse: where the suite runs on a device, this call stays on the processor like the one with scores.
          const lse = Tensor.zeros('f32', [queries, heads]);
          const plain = attention(q, k, v, { ...options, isa, lse });
          const output = attention(q, k, v, {
            ...options,
            isa,
            scores: { queries: last, ...written },
          });
          expect(firstDifference(output.bytes, plain.bytes)).toBe(-1);
          const { probabilities, wobble } = attentionReference(q, k, v, options);
          const expected = formulas(probabilities, sequences, heads, queries, longest, last);
          // Weights are off by this relatively (attention_cases.ts), sums no more; -p ln p by that times 1 + |ln p|, which is 88 at most.
          const steps = (16 + 2 * wobble.reduce((a, b) => Math.max(a, b), 0)) * 2 ** -23;
          const rows = Math.max(1, ...sequences.map(({ queries: n }) => n));
          const bounds = { sums: rows, squares: 2 * rows, entropy: 89, variance: 4 };
          for (const name of names) {
            const bound = steps * bounds[name] + 1e-37;
            const off = worst(written[name].toArray(), expected[name], bound, 2 * steps);
            expect(off, name).toBeLessThanOrEqual(1);
          }
        },
      ),
      { numRuns: isa === 'scalar' ? 15 : 40 },
    );
  });

  it.each(kvFormatNames)('are those of the probabilities, pages of %s', (keyFormat) => {
    for (const compute of ['f32', 'i8', 'bf16'] as const) {
      for (const isa of levels) {
        // 9 and 40 queries of 4 heads of a kv head: the second has a kernel of prompts at level amx.
        for (const n of [1, 9, ...(isa === 'scalar' ? [] : [40])]) {
          const lengths = [70, 45];
          const plan = { keyFormat, pageSize: 32, lengths, kvHeads: 2, keyDim: 32, valueDim: 32 };
          const { segment } = paged(plan);
          const q = new Tensor('f32', gaussian(2 * n * 8 * 32, 3), [2 * n, 8, 32]);
          const weights = Tensor.zeros('f32', [8, 2 * n, 70]);
          const written = room(2, 8, 70);
          const options = { isa, compute };
          decodeAttention(q, [segment], { ...options, probabilities: weights });
          const plain = decodeAttention(q, [segment], options);
          const scores = { queries: 7, ...written };
          const output = decodeAttention(q, [segment], { ...options, scores });
          expect(firstDifference(output.bytes, plain.bytes)).toBe(-1);
          const sequences = lengths.map((keys, i) => ({ query: i * n, queries: n, key: 0, keys }));
          const all = Float64Array.from(weights.toArray());
          const expected = formulas(all, sequences, 8, 2 * n, 70, 7);
          for (const name of names) {
            expect(worst(written[name].toArray(), expected[name], 1e-9, 1e-5), name).toBeLessThan(
              1,
            );
          }
        }
      }
    }
  });

  it('are of heads with lengths of their own', () => {
    const lengths = [[30, 70]];
    const plan = {
      keyFormat: 'f16',
      pageSize: 16,
      lengths,
      kvHeads: 2,
      keyDim: 8,
      valueDim: 8,
    } as const;
    const { segment } = paged(plan);
    const q = new Tensor('f32', gaussian(2 * 4 * 8, 3), [2, 4, 8]);
    const { sums } = room(1, 4, 70);
    decodeAttention(q, [segment], { scores: { sums } });
    const values = sums.toArray();
    expect(values.slice(30, 70)).toEqual(new Array(40).fill(0));
    for (const head of [0, 1, 2, 3]) {
      const sum = values.slice(70 * head, 70 * head + 70).reduce((a, b) => a + b, 0);
      expect(sum).toBeCloseTo(2, 5);
    }
  });

  const tensor = (shape: number[], seed: number): Tensor<'f32'> =>
    new Tensor(
      'f32',
      gaussian(
        shape.reduce((a, b) => a * b, 1),
        seed,
      ),
      shape,
    );
  const [q, k, v] = [tensor([20, 6, 16], 1), tensor([600, 3, 16], 2), tensor([600, 3, 16], 3)];

  it.each(levels)('have the same bits on any number of threads and async, %s', async (isa) => {
    const options = { causal: true, isa };
    const expected = room(1, 6, 600);
    attention(q, k, v, { ...options, threads: 1, scores: { queries: 15, ...expected } });
    for (const threads of [2, 3, 7]) {
      const written = room(1, 6, 600);
      await attentionAsync(q, k, v, { ...options, threads, scores: { queries: 15, ...written } });
      for (const name of names) {
        expect(firstDifference(written[name].bytes, expected[name].bytes)).toBe(-1);
      }
    }
  });

  it.each(levels)('have the same bits where threads share the keys of one head, %s', (isa) => {
    const plan = { kvHeads: 1, keyDim: 16, valueDim: 24 };
    const old = paged({ ...plan, keyFormat: 'i4', pageSize: 32, lengths: [1100, 0, 600] });
    const recent = paged({
      ...plan,
      keyFormat: 'f16',
      pageSize: 16,
      lengths: [37, 530, 1],
      seed: 9,
    });
    const segments = [old.segment, recent.segment];
    const query = tensor([3 * 9, 40, 16], 4);
    for (const compute of ['f32', 'i8'] as const) {
      for (const queries of [0, 5]) {
        const results = [1, 2, 3, 7, 64].map((threads) => {
          const written = room(3, 40, 1137);
          const lse = Tensor.zeros('f32', [27, 40]);
          const scores = { queries, ...written };
          const output = decodeAttention(query, segments, { isa, compute, threads, lse, scores });
          return { output, lse, ...written };
        });
        const [first] = results as [(typeof results)[0]];
        const plain = decodeAttention(query, segments, { isa, compute, threads: 1 });
        expect(firstDifference(first.output.bytes, plain.bytes)).toBe(-1);
        for (const other of results) {
          for (const name of ['output', 'lse', ...names] as const) {
            expect([name, firstDifference(other[name].bytes, first[name].bytes)]).toEqual([
              name,
              -1,
            ]);
          }
        }
        // A row's weights add up to 1.
        const row = first.sums.toArray().slice(0, 1137);
        expect(row.reduce((a, b) => a + b, 0)).toBeCloseTo(queries === 0 ? 9 : 5, 4);
      }
    }
  });

  it.each(levels)('have an entropy of ln m where m weights are equal, %s', (isa) => {
    for (const m of [1, 2, 3, 17, 512, 513, 1000, 4099]) {
      const entropy = Tensor.zeros('f32', [1, 2]);
      const zeros = Tensor.zeros('f32', [3, 2, 8]);
      attention(zeros, tensor([m, 1, 8], 2), tensor([m, 1, 8], 3), { isa, scores: { entropy } });
      // A weight is off by a rounding and the sum they are divided by, its logarithm by 2.6 * 2^-24 more.
      for (const value of entropy.toArray()) {
        expect(Math.abs(value - Math.log(m))).toBeLessThanOrEqual(8 * 2 ** -24 * Math.log(m));
      }
    }
  });

  it('hold NaN of a query that has it, and zeros where nothing is seen', () => {
    const values = q.toArray();
    values[0] = Number.NaN;
    const bad = new Tensor('f32', values, [20, 6, 16]);
    const written = room(1, 6, 600);
    attention(bad as Tensor<FloatDType>, k, v, { scores: written });
    expect(written.sums.toArray().slice(0, 600).every(Number.isNaN)).toBe(true);
    expect(written.entropy.toArray().map(Number.isNaN)).toEqual([true, ...Array(5).fill(false)]);
    const none = room(1, 6, 0);
    attention(q, k.slice(0, 0), v.slice(0, 0), { scores: none });
    expect([none.entropy.toArray(), none.variance.toArray()]).toEqual([
      Array(6).fill(0),
      Array(6).fill(0),
    ]);
    const idle = room(1, 6, 600);
    attention(q.slice(0, 0), k, v, { scores: idle });
    expect(idle.sums.toArray().every((sum) => sum === 0)).toBe(true);
  });

  it('are refused with what is wrong', () => {
    const refuse = (scores: AttentionScores) => () => attention(q, k, v, { scores });
    const sums = Tensor.zeros('f32', [1, 6, 600]);
    const entropy = Tensor.zeros('f32', [1, 6]);
    expect(refuse({ queries: -1, entropy })).toThrow('scores.queries is -1, expected at least 0');
    expect(refuse({ sums: Tensor.zeros('f32', [1, 6, 599]) })).toThrow(
      'attention: scores.sums.shape[2] is 599, expected 600 (= the keys of the longest sequence)',
    );
    expect(refuse({ squares: Tensor.zeros('f32', [2, 6, 600]) })).toThrow(
      'attention: scores.squares.shape[0] is 2, expected 1 (= sequences)',
    );
    expect(refuse({ variance: Tensor.zeros('f32', [1, 5]) })).toThrow(
      'attention: scores.variance.shape[1] is 5, expected 6 (= q.shape[1])',
    );
    expect(refuse({ sums, squares: sums })).toThrow('scores.squares');
    expect(refuse({ entropy: Tensor.zeros('f32', [6]) as Tensor<'f32'> })).toThrow(
      'scores.entropy',
    );
    expect(refuse({ rows: 3 } as AttentionScores)).toThrow('option "rows" is not known');
  });
});
