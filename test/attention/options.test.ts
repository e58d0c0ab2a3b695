// Every option of attention beside every other against the formula; keys that are not seen; rows of probabilities.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { attention, type FloatDType, Tensor } from '../../lib/index.js';
import { sequencesOf, sightOf } from '../reference/attention.js';
import {
  attend,
  expectFormula,
  inputsOf,
  optionsOf,
  plans,
  type Results,
  workOf,
} from '../reference/attention_cases.js';
import { isas } from '../reference/op_checks.js';
import { randomSource } from '../reference/random.js';

const small = plans.filter((plan) => workOf(plan) < 3e5);

/** Some keys, those at boundaries of tiles and chunks first. */
function someKeys(count: number, seed: number): number[] {
  const random = randomSource(seed);
  const keys = [0, 15, 63, 64, 511, 512, count - 1].filter((key) => key >= 0 && key < count);
  for (let i = 0; i < 3 && count > 0; i++) keys.push(Math.floor(random() * count));
  return [...new Set(keys.filter(() => random() < 0.4))];
}

/** A copy of which some rows are not finite. */
function poisoned(tensor: Tensor<FloatDType>, rows: readonly number[]): Tensor<FloatDType> {
  const values = tensor.toArray();
  const [, heads, dim] = tensor.shape as [number, number, number];
  const poisons = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const row of rows) {
    for (let i = 0; i < heads * dim; i++) {
      values[row * heads * dim + i] = poisons[(row + i) % 3] as number;
    }
  }
  return new Tensor(tensor.dtype, values, tensor.shape);
}

/** Results of a query and head, in one list. */
function rowOf({ output, lse, probabilities }: Results) {
  const [queries, heads, dim] = output.shape as [number, number, number];
  const keys = probabilities.shape[2] as number;
  const [outputs, lses, weights] = [output.toArray(), lse.toArray(), probabilities.toArray()];
  return (t: number, h: number): number[] => [
    ...outputs.slice((t * heads + h) * dim, (t * heads + h + 1) * dim),
    lses[t * heads + h] as number,
    ...weights.slice((h * queries + t) * keys, (h * queries + t + 1) * keys),
  ];
}

describe('options of attention', () => {
  it.each(isas)('follow the formula together, %s', (isa) => {
    fc.assert(
      fc.property(small, (plan) => {
        const inputs = inputsOf(plan);
        const options = optionsOf(plan);
        expectFormula(
          isa,
          inputs,
          options,
          attend(inputs, { ...options, isa, threads: 1 }, plan.dtype),
        );
      }),
      { numRuns: 40 },
    );
  });

  it.each(isas)('hide keys whatever stands there, %s', (isa) => {
    const rows = { untouched: 0, touched: 0 };
    fc.assert(
      fc.property(small, (plan) => {
        // Without gaps, which poisoned() would close, and so change the kernel.
        const { q, k, v } = inputsOf({ ...plan, gaps: [] });
        const options = optionsOf(plan);
        const keys = new Set(someKeys(k.shape[0] as number, plan.seed));
        const clean = rowOf(attend({ q, k, v }, { ...options, isa, threads: 1 }));
        const dirty = rowOf(
          attend(
            { q, k: poisoned(k, [...keys]), v: poisoned(v, [...keys]) },
            { ...options, isa, threads: 1 },
          ),
        );
        const sees = sightOf(options);
        for (const sequence of sequencesOf(q, k, options)) {
          const here = [...keys].filter(
            (key) => key >= sequence.key && key < sequence.key + sequence.keys,
          );
          for (let t = 0; t < sequence.queries; t++) {
            for (let h = 0; h < plan.kvHeads * plan.group; h++) {
              if (here.some((key) => sees(sequence, t, h, key - sequence.key))) {
                rows.touched++;
                continue;
              }
              rows.untouched++;
              const at = sequence.query + t;
              const [expected, actual] = [clean(at, h), dirty(at, h)];
              const differs = actual.findIndex((x, i) => !Object.is(x, expected[i]));
              if (differs >= 0) expect([at, h, differs, actual[differs]]).toBe(expected[differs]);
            }
          }
        }
      }),
      { numRuns: 40 },
    );
    expect(rows.untouched).toBeGreaterThan(100);
    expect(rows.touched).toBeGreaterThan(10);
  });

  it.each(isas)('leave probabilities whose rows sum to 1, less what a sink takes, %s', (isa) => {
    fc.assert(
      fc.property(small, (plan) => {
        const inputs = inputsOf(plan);
        const options = optionsOf(plan);
        const { lse, probabilities } = attend(inputs, { ...options, isa, threads: 1 });
        const [heads, queries, keys] = probabilities.shape as [number, number, number];
        const weights = probabilities.toArray();
        const lses = lse.toArray();
        const sinks = options.sinks?.toArray();
        const steps = lses.reduce(
          (most, x) => (Number.isFinite(x) ? Math.max(most, Math.abs(x)) : most),
          0,
        );
        for (let h = 0; h < heads; h++) {
          for (let t = 0; t < queries; t++) {
            const at = (h * queries + t) * keys;
            const row = weights.slice(at, at + keys);
            expect(row.every((x) => x >= 0)).toBe(true);
            const own = lses[t * heads + h] as number;
            const sink = sinks === undefined ? 0 : Math.exp((sinks[h] as number) - own);
            const expected = own === Number.NEGATIVE_INFINITY ? 0 : 1 - sink;
            const sum = row.reduce((a, b) => a + b, 0);
            // exp, log and total are off by some steps each, x - lse by those of the larger.
            expect(Math.abs(sum - expected)).toBeLessThanOrEqual((32 + 4 * steps) * 2 ** -23);
          }
        }
      }),
      { numRuns: 30 },
    );
  });

  it('holds for a mask of the last keys: a tree of draft tokens', () => {
    // Tokens 0 to 5 follow 70 others. 0: root; 1 and 2 follow 0; 3 follows 1; 4 and 5 follow 2.
    const parents = [-1, 0, 0, 1, 2, 2];
    const seen = parents.flatMap((_, t) => {
      const path = new Set<number>();
      for (let at = t; at >= 0; at = parents[at] as number) path.add(at);
      return parents.map((__, s) => (path.has(s) ? 1 : 0));
    });
    const mask = new Tensor('u8', seen, [1, 6, 6]);
    const plan = {
      dtype: 'f32' as const,
      kvHeads: 2,
      group: 2,
      headDim: 16,
      valueDim: 16,
      seed: 5,
    };
    const { q, k, v } = inputsOf({ ...plan, lengths: [[6, 76]], gaps: [] });
    for (const isa of isas) {
      const tree = attention(q, k, v, { mask, isa }).toArray();
      // The same along each path, as a chain of its own.
      for (const path of [
        [0, 1, 3],
        [0, 2, 4],
        [0, 2, 5],
      ]) {
        const rows = (x: Tensor<FloatDType>, first: number): Tensor<'f32'> => {
          const size = (x.shape[1] as number) * (x.shape[2] as number);
          const values = x.toArray();
          const kept = [...Array(first).keys(), ...path.map((t) => first + t)];
          return new Tensor(
            'f32',
            kept.flatMap((row) => values.slice(row * size, (row + 1) * size)),
            [kept.length, x.shape[1] as number, x.shape[2] as number],
          );
        };
        const chain = attention(rows(q, 0), rows(k, 70), rows(v, 70), { causal: true, isa });
        path.forEach((t, i) => {
          for (let j = 0; j < 4 * 16; j++) {
            expect(tree[t * 64 + j]).toBeCloseTo(chain.data[i * 64 + j] as number, 5);
          }
        });
      }
    }
  });

  it.each(isas)('give NaN to seen keys alone where a row is NaN, %s', (isa) => {
    const q = new Tensor('f32', [Number.NaN, 1], [2, 1, 1]);
    const k = new Tensor('f32', [1, 2, 3], [3, 1, 1]);
    const probabilities = Tensor.empty('f32', [1, 2, 3]);
    attention(q, k, k, { isa, probabilities, causal: true });
    expect([...probabilities.data.slice(0, 3)]).toEqual([Number.NaN, Number.NaN, 0]);
  });

  // Masks of bytes are read eight at a time, of blocks one at a time: all widths, offsets and strides.
  it.each(isas)('take masks of any width, %s', (isa) => {
    const random = randomSource(11);
    for (const keys of [1, 7, 8, 15, 64, 65, 131, 150]) {
      const columns = Math.max(1, keys - 5);
      const [q, k] = [Tensor.zeros('f32', [3, 2, 4]), Tensor.zeros('f32', [keys, 1, 4])];
      const bytes = Uint8Array.from({ length: 2 * 3 * columns }, () =>
        random() < 0.5 ? 0 : 1 + 254 * random(),
      );
      const mask = new Tensor('u8', bytes, [2, 3, columns]);
      const probabilities = Tensor.empty('f32', [2, 3, keys]);
      attention(q, k, k, { isa, mask, probabilities });
      for (let h = 0; h < 2; h++) {
        for (let t = 0; t < 3; t++) {
          const row = (h * 3 + t) * columns;
          const sees = (s: number) => s < keys - columns || bytes[row + s - keys + columns] !== 0;
          const seen = Array.from({ length: keys }, (_, s) => (sees(s) ? 1 : 0));
          const count = seen.reduce<number>((a, b) => a + b, 0);
          const expected = seen.map((x) => Math.fround(count === 0 ? 0 : x / count));
          const actual = [...probabilities.data.slice((h * 3 + t) * keys, (h * 3 + t + 1) * keys)];
          for (const [s, x] of expected.entries()) expect(actual[s]).toBeCloseTo(x, 6);
        }
      }
    }
  });
});
