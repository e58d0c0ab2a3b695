import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type MoERouteOptions, machine, moeRoute, moeRouteAsync, Tensor } from '../../lib/index.js';
import { type Router, route } from '../reference/moe.js';
import { expectError, floatTypes, strided, worst } from '../reference/op_checks.js';
import { firstDifference, gaussian } from '../reference/random.js';

const f32 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('f32', Float32Array.from(values), shape);

/** Logits of one token. */
const one = (...values: number[]) => f32(values, [1, values.length]);

const router = fc
  .record({
    groupSize: fc.integer({ min: 1, max: 9 }),
    numGroups: fc.integer({ min: 1, max: 9 }),
    top: fc.double({ min: 0, max: 1, noNaN: true }),
    topGroup: fc.double({ min: 0, max: 1, noNaN: true }),
    scoring: fc.constantFrom<Router['scoring']>('softmax', 'softmaxChosen', 'sigmoid'),
    groupScore: fc.constantFrom<Router['groupScore']>('max', 'top2'),
    biased: fc.boolean(),
    normalize: fc.boolean(),
    scale: fc.constantFrom(1, 2.5, 16, -0.5),
    tokens: fc.integer({ min: 0, max: 40 }),
    seed: fc.integer({ min: 1, max: 1e6 }),
    // Few different logits: ties.
    steps: fc.constantFrom(0, 3, 20),
  })
  .map(({ groupSize, top, topGroup, biased, ...rest }) => {
    const experts = groupSize * rest.numGroups;
    const topGroups = 1 + Math.floor(topGroup * (rest.numGroups - 1));
    const topK = 1 + Math.floor(top * (topGroups * groupSize - 1));
    const bias =
      biased && rest.scoring !== 'softmaxChosen'
        ? Array.from(gaussian(experts, rest.seed + 1), (x) => Math.fround(x * 0.1))
        : undefined;
    const logits = Array.from(gaussian(rest.tokens * experts, rest.seed), (x) =>
      Math.fround(rest.steps === 0 ? x * 4 : Math.round(x * rest.steps) / rest.steps),
    );
    return { ...rest, experts, topGroups, topK, bias, logits };
  });

function optionsOf({ bias, ...rest }: Router): MoERouteOptions {
  const { topK, scoring, numGroups, topGroups, groupScore, normalize, scale } = rest;
  return {
    ...{ topK, scoring, numGroups, topGroups, groupScore, normalize, scale },
    ...(bias === undefined ? {} : { bias: f32(bias, [bias.length]) }),
  };
}

describe('moeRoute', () => {
  it('does what the formula says, 1000 random routings', () => {
    fc.assert(
      fc.property(router, (own) => {
        const { tokens, experts, topK, logits } = own;
        const scores = Tensor.zeros('f32', [tokens, experts]);
        const routes = moeRoute(f32(logits, [tokens, experts]), { ...optionsOf(own), scores });
        expect(routes.indices.shape).toEqual([tokens, topK]);
        for (let t = 0; t < tokens; t++) {
          const expected = route(logits.slice(t * experts, (t + 1) * experts), own);
          const at = [t * topK, (t + 1) * topK] as const;
          expect(Array.from(routes.indices.data.slice(...at))).toEqual(expected.indices);
          const step = 2 ** -23; // rounded once
          const weights = routes.weights.data.slice(...at);
          expect(worst(weights, expected.weights, 1e-45, step)).toBeLessThanOrEqual(1);
          const own32 = scores.data.slice(t * experts, (t + 1) * experts);
          expect(worst(own32, expected.scores, 1e-45, step)).toBeLessThanOrEqual(1);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it.each(floatTypes)(
    'takes %s, strided, on any number of threads, at every level, on a worker',
    async (dtype) => {
      const values = gaussian(100 * 24, 5);
      const logits = new Tensor(dtype, Array.from(values), [100, 24]);
      const options: MoERouteOptions = { topK: 5, normalize: true, numGroups: 4, topGroups: 2 };
      const expected = moeRoute(logits, { ...options, isa: 'scalar', threads: 1 });
      const into = {
        indices: Tensor.zeros('i32', [100, 5]),
        weights: Tensor.zeros('f32', [100, 5]),
      };
      const all = [
        moeRoute(strided(dtype, values, [100, 24], [3, 1]), options),
        ...[2, 3, 7].map((threads) => moeRoute(logits, { ...options, threads })),
        ...machine().isas.map((isa) => moeRoute(logits, { ...options, isa })),
        await moeRouteAsync(logits, options),
        moeRoute(logits, { ...options, out: into }),
      ];
      for (const actual of all) {
        expect(firstDifference(actual.indices.bytes, expected.indices.bytes)).toBe(-1);
        expect(firstDifference(actual.weights.bytes, expected.weights.bytes)).toBe(-1);
      }
    },
  );

  it('gives equal experts to the lower number, and all of them when asked', () => {
    expect(moeRoute(one(1, 2, 2, 1), { topK: 3 }).indices.toArray()).toEqual([1, 2, 0]);
    const all = moeRoute(one(0, 0, 0, 0), { topK: 4 });
    expect(all.indices.toArray()).toEqual([0, 1, 2, 3]);
    expect(all.weights.toArray()).toEqual([0.25, 0.25, 0.25, 0.25]);
  });

  it('puts -infinity behind all others, also behind those whose score underflows', () => {
    const low = Number.NEGATIVE_INFINITY;
    const { indices, weights } = moeRoute(one(low, -5000, 0, -4000), { topK: 4 });
    expect(indices.toArray()).toEqual([2, 3, 1, 0]);
    expect(weights.toArray()).toEqual([1, 0, 0, 0]);
    // Groups that do not count stay out even so.
    const grouped = moeRoute(one(low, 3, 1, 1), { topK: 2, numGroups: 2, topGroups: 1 });
    expect(grouped.indices.toArray()).toEqual([1, 0]);
    const nothing = moeRoute(one(-2000, -3000), { topK: 1, scoring: 'sigmoid', normalize: true });
    expect(nothing.weights.toArray()).toEqual([0]);
  });

  it('chooses by the bias and does not weigh by it', () => {
    const bias = f32([0, 0, 1, 0], [4]);
    const { indices, weights } = moeRoute(one(1, 0, -1, -2), { topK: 2, scoring: 'sigmoid', bias });
    expect(indices.toArray()).toEqual([2, 0]);
    expect(weights.toArray()).toEqual([1 / (1 + Math.E), 1 / (1 + Math.exp(-1))].map(Math.fround));
  });

  it('names what is wrong, and writes nothing', () => {
    const logits = one(1, 2, 3, 4);
    const scores = f32([7, 7, 7, 7], [1, 4]);
    const low = Number.NEGATIVE_INFINITY;
    const cases: [Tensor<'f32'>, object, string, string][] = [
      [logits, { topK: 5 }, 'OUT_OF_RANGE', 'topK is 5, expected 1 to 4 (logits.shape[1])'],
      [logits, { topK: 0 }, 'OUT_OF_RANGE', 'topK is 0, expected 1 to 4 (logits.shape[1])'],
      [
        logits,
        { scoring: 'none' },
        'INVALID_ARGUMENT',
        'scoring is "none", expected softmax, softmaxChosen, sigmoid',
      ],
      [
        logits,
        { groupScore: 'sum' },
        'INVALID_ARGUMENT',
        'groupScore is "sum", expected max, top2',
      ],
      [logits, { normalize: 1 }, 'INVALID_ARGUMENT', 'normalize is 1, expected true or false'],
      [logits, { scale: Number.NaN }, 'INVALID_ARGUMENT', 'scale is nan, expected a finite number'],
      [
        logits,
        { numGroups: 3 },
        'OUT_OF_RANGE',
        'numGroups is 3, expected a divisor of 4 (logits.shape[1])',
      ],
      [
        logits,
        { numGroups: 2, topGroups: 3 },
        'OUT_OF_RANGE',
        'topGroups is 3, expected 1 to 2 (numGroups)',
      ],
      [
        logits,
        { numGroups: 4, topGroups: 1 },
        'OUT_OF_RANGE',
        'topGroups is 1, expected at least 2 (2 experts in groups of 1)',
      ],
      [
        logits,
        { bias: f32([1], [1]) },
        'INVALID_SHAPE',
        'bias.shape[0] is 1, expected 4 (= logits.shape[1])',
      ],
      [
        logits,
        { bias: f32([0, 0, 0, Number.NaN], [4]) },
        'NON_FINITE',
        'bias[3] is nan, expected a finite number',
      ],
      [
        logits,
        { bias: f32([0, 0, 0, 0], [4]), scoring: 'softmaxChosen' },
        'INVALID_ARGUMENT',
        'bias is given, expected none with softmax over the chosen experts',
      ],
      [
        logits,
        { scores: f32([1], [1, 1]) },
        'INVALID_SHAPE',
        'scores.shape[1] is 1, expected 4 (= logits.shape[1])',
      ],
      [
        logits,
        { scores: logits },
        'INVALID_ARGUMENT',
        'scores overlaps logits, expected separate memory',
      ],
      [
        one(1, 2, Number.NaN, 0),
        {},
        'NON_FINITE',
        'logits[0, 2] is NaN or infinity, expected a number',
      ],
      [one(1, 2, 0, -low), {}, 'NON_FINITE', 'logits[0, 3] is NaN or infinity, expected a number'],
      [
        one(low, low, low, low),
        {},
        'NON_FINITE',
        'logits[0] are all -infinity, expected a number among them',
      ],
      [
        logits,
        { out: { indices: new Tensor('i32', [0], [1, 1]), weights: one(0) } },
        'INVALID_SHAPE',
        'out.indices.shape[1] is 1, expected 2 (= topK)',
      ],
      [f32([1, 2], [2]), {}, 'INVALID_SHAPE', 'logits.rank is 1, expected 2'],
    ];
    for (const [z, options, code, message] of cases) {
      expectError(
        () => moeRoute(z, { topK: 2, scores, ...options }),
        `BL_${code}`,
        `moeRoute: ${message}`,
      );
    }
    expect(scores.toArray()).toEqual([7, 7, 7, 7]);
  });
});
