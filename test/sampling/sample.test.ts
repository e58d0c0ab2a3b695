import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type SampleOptions, sample, sampleAsync, sequence, Tensor } from '../../lib/index.js';
import { isas, strided } from '../reference/op_checks.js';
import { gaussian } from '../reference/random.js';
import { distribution, splitmix64, uniform } from '../reference/sampling.js';

const logitsOf = (values: readonly number[]) => new Tensor('f32', [...values], [values.length]);
const { POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: minus } = Number;

/** Critical value of chi-square at 1e-6 (Wilson and Hilferty 1931): the seeds are fixed, no flakes. */
function chiSquareLimit(freedom: number): number {
  const z = 4.753;
  const spread = 2 / (9 * freedom);
  return freedom * (1 - spread + z * Math.sqrt(spread)) ** 3;
}

/** Draws `count` tokens and compares their frequencies with the reference distribution. */
function expectDistribution(values: readonly number[], options: SampleOptions, count = 4000): void {
  const { previous, seed: _, position: __, ...rest } = options;
  const left = distribution(Float32Array.from(values), {
    ...rest,
    ...(previous === undefined ? {} : { previous: previous.toArray() }),
  });
  const seen = new Map<number, number>();
  const logits = logitsOf(values);
  for (let position = 0; position < count; position++) {
    const { token, probability } = sample(logits, { ...options, position });
    seen.set(token, (seen.get(token) ?? 0) + 1);
    const expected = left.find((each) => each.token === token);
    expect(expected, `token ${token}`).toBeDefined();
    expect(probability).toBeCloseTo(expected?.probability as number, 6);
  }
  let statistic = 0;
  for (const { token, probability } of left) {
    statistic += ((seen.get(token) ?? 0) - count * probability) ** 2 / (count * probability);
  }
  if (left.length > 1) expect(statistic).toBeLessThan(chiSquareLimit(left.length - 1));
}

describe('sample', () => {
  const values = [1, -2, 0.5, 3, 2.5, 0, -1, 1];

  it.each<[string, SampleOptions]>([
    ['plain softmax', {}],
    ['temperature 0.5', { temperature: 0.5 }],
    ['temperature 3', { temperature: 3, seed: 7 }],
    ['topK 3', { topK: 3 }],
    ['topK through a tie', { topK: 4 }],
    ['topK above vocab', { topK: 100 }],
    ['topP 0.8', { topP: 0.8 }],
    ['topP 0 is all', { topP: 0 }],
    ['minP 0.1', { minP: 0.1 }],
    ['penalty', { repetitionPenalty: 1.5, previous: new Tensor('i32', [3, 1, 3, 5], [4]) }],
    ['penalty below 1', { repetitionPenalty: 0.5, previous: new Tensor('i32', [0], [1]) }],
    [
      'everything',
      {
        temperature: 1.5,
        topK: 6,
        topP: 0.95,
        minP: 0.05,
        repetitionPenalty: 1.2,
        previous: new Tensor('i32', [4, 3], [2]),
        seed: 2n ** 64n - 1n,
      },
    ],
  ])('draws from the distribution: %s', (_, options) => {
    expectDistribution(values, options);
  });

  it('picks exactly the token of the documented draw', () => {
    fc.assert(
      fc.property(
        fc.record({
          vocab: fc.integer({ min: 1, max: 700 }),
          temperature: fc.constantFrom(0, 0.3, 1, 2),
          topK: fc.constantFrom(0, 1, 5, 40, 300),
          topP: fc.constantFrom(0, 0.1, 0.5, 0.9, 0.999, 1),
          minP: fc.constantFrom(0, 0.01, 0.3, 0.99),
          repetitionPenalty: fc.constantFrom(0, 0.5, 1, 1.3),
          seed: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
          position: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
          levels: fc.constantFrom(1, 4, 1000),
          salt: fc.integer(),
        }),
        ({ vocab, seed, position, levels, salt, ...options }) => {
          // Few levels: many ties, so that the order by id counts.
          const logits = gaussian(vocab, salt, 3).map((x) => Math.round(x * levels) / levels);
          const previous = Array.from({ length: vocab % 7 }, (_, i) => (i * 31) % vocab);
          const penalty = options.repetitionPenalty || 1;
          const left = distribution(logits, { ...options, repetitionPenalty: penalty, previous });
          const u = uniform(seed, position);
          let sum = 0;
          const picked = left.find(({ probability }) => {
            sum += probability;
            return sum > u;
          });
          // Within rounding of a boundary either neighbour is right; with 53 bits that does not occur here.
          const { token, probability } = sample(new Tensor('f32', logits, [vocab]), {
            ...options,
            previous: strided('i32', previous, [previous.length], [1]),
            seed,
            position,
          });
          expect(token).toBe((picked ?? left[left.length - 1])?.token);
          expect(probability).toBeCloseTo(
            (picked ?? left[left.length - 1])?.probability as number,
            6,
          );
        },
      ),
      { numRuns: 300 },
    );
  });

  it('uses the SplitMix64 sequence of the seed', () => {
    // First outputs for seed 1234567, as other implementations publish them.
    const published = [6457827717110365317n, 3203168211198807973n, 9817491932198370423n];
    const stepped = splitmix64(1234567n);
    for (const [position, value] of published.entries()) {
      expect(stepped.next().value).toBe(value);
      expect(uniform(1234567n, BigInt(position))).toBe(Number(value >> 11n) * 2 ** -53);
      // 4096 equal logits: the token is the top 12 bits of the draw.
      const { token } = sample(Tensor.zeros('f32', [4096]), { seed: 1234567, position });
      expect(token).toBe(Number(value >> 52n));
    }
  });

  it('is greedy at temperature 0: highest logit, lowest id, whatever the other options', () => {
    const options = { temperature: 0, topK: 2, topP: 0.1, minP: 0.5 };
    for (let seed = 0; seed < 5; seed++) {
      expect({ ...sample(logitsOf([1, 5, 2, 5, 5]), { ...options, seed }) }).toEqual({
        token: 1,
        probability: 1,
      });
    }
    expect(sample(logitsOf([minus, -7]), { temperature: 0 }).token).toBe(1);
    expect(sample(logitsOf([3, inf, 4, inf]), { temperature: 0 }).token).toBe(1);
    const previous = new Tensor('i32', [1], [1]);
    expect(
      sample(logitsOf([1, 5, 4]), { temperature: 0, repetitionPenalty: 2, previous }).token,
    ).toBe(2);
    expect(
      sample(logitsOf([-1, -5, -1.5]), { temperature: 0, repetitionPenalty: 2, previous }).token,
    ).toBe(0);
  });

  it('never draws -infinity, shares +infinity, survives extremes', () => {
    expectDistribution([minus, 0, minus, 0, minus], {}, 300);
    expectDistribution([5, inf, 3, inf, minus], {}, 300);
    for (let position = 0; position < 50; position++) {
      const huge = sample(logitsOf([-3e38, 3e38, 0]), { position });
      expect({ ...huge }).toEqual({ token: 1, probability: 1 });
      const cold = sample(logitsOf([1, 1.001, 1]), { position, temperature: 1e-45 });
      expect(cold.token).toBe(1);
      const hot = sample(logitsOf([-1000, 1000]), { position, temperature: 3e38 });
      expect(hot.probability).toBeCloseTo(0.5, 6);
    }
    expect({ ...sample(logitsOf([-12]), {}) }).toEqual({ token: 0, probability: 1 });
    // A penalty does not make a finite logit infinite, which would take all probability.
    const previous = new Tensor('i32', [0, 1], [2]);
    const left = sample(logitsOf([3e38, -3e38, 3e38]), { repetitionPenalty: 0.5, previous });
    expect(left.probability).toBe(1);
  });

  it('keeps at least one token and exactly the prefix that reaches topP', () => {
    // Probabilities 1/2, 1/4, 1/8, 1/8: sums that are exact.
    const logits = [8, 4, 2, 2].map((p) => Math.log(p / 16));
    const kept = (topP: number): number => {
      const tokens = new Set<number>();
      for (let position = 0; position < 200; position++) {
        tokens.add(sample(logitsOf(logits), { topP, position }).token);
      }
      return tokens.size;
    };
    expect([1e-9, 0.49, 0.51, 0.74, 0.76, 0.87, 0.88, 1].map(kept)).toEqual([
      1, 1, 2, 2, 3, 3, 4, 4,
    ]);
  });

  it('gives the same on every level, async, in a sequence, and again', async () => {
    const logits = new Tensor('f32', gaussian(32000, 5, 4), [32000]);
    for (const options of [
      {},
      { topK: 40 },
      { topP: 0.95 },
      { minP: 0.02 },
      { topK: 500, topP: 0.5 },
    ]) {
      for (let position = 0; position < 5; position++) {
        const call = { ...options, seed: 99, position };
        const expected = { ...sample(logits, call) };
        for (const isa of isas)
          expect({ ...sample(logits, { ...call, isa, threads: 3 }) }).toEqual(expected);
        expect({ ...(await sampleAsync(logits, call)) }).toEqual(expected);
        expect({ ...(await sequence(() => sample(logits, call))) }).toEqual(expected);
      }
    }
  });

  it('gives other draws for other seeds and positions', () => {
    const logits = Tensor.zeros('f32', [1000]);
    const tokens = (options: (i: number) => SampleOptions) =>
      new Set(Array.from({ length: 100 }, (_, i) => sample(logits, options(i)).token)).size;
    expect(tokens((position) => ({ position }))).toBeGreaterThan(80);
    expect(tokens((seed) => ({ seed }))).toBeGreaterThan(80);
  });
});
