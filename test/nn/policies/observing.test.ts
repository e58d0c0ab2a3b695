// Policies that score by what the last queries look at: scores, budgets and choices against the formulas written out.
import { describe, expect, it } from 'vitest';
import {
  type CachePolicy,
  cake,
  chunkKV,
  compressKV,
  d2o,
  h2o,
  pyramidKV,
  scissorhands,
  snapKV,
  streamingLLM,
  tova,
} from '../../../lib/nn/index.js';
import {
  compress,
  largest,
  nested,
  newLayer,
  step,
  sumOf,
  type Weights,
  weights,
} from './drive.js';

const [kvHeads, group, keys] = [2, 3, 40];
const headsOf = (kvHead: number): number[] => nested(group, (i) => kvHead * group + i);

/** Weights of the last `queries` of a step of all keys; another each time. */
let seed = 1;
const look = (queries: number, all = keys): Weights =>
  weights(kvHeads * group, queries, all, seed++);

/** What stays of one layer that has seen `seen` at once. */
function keptOf(policy: CachePolicy, seen: Weights | undefined): number[][] {
  const layers = [newLayer(kvHeads)];
  step(policy, layers, keys, () => seen);
  return compress(policy, layers).kept[0] as number[][];
}

/** The best `count - window` of the older keys and the newest `window`. */
const bestAndNewest = (scores: number[], count: number, window: number): number[] => [
  ...largest(scores, count - window, scores.length - window),
  ...nested(window, (i) => scores.length - window + i),
];

const largestOf = (list: readonly number[], size: number): number[] =>
  list.map((_, s) => Math.max(...list.slice(Math.max(0, s - (size - 1) / 2), s + (size + 1) / 2)));

const meanOf = (list: readonly number[], size: number): number[] =>
  list.map((_, s) => {
    const neighbours = list.slice(Math.max(0, s - (size - 1) / 2), s + (size + 1) / 2);
    return neighbours.reduce((a, b) => a + b, 0) / size;
  });

/** The shares of a budget, by naive search: what each layer gets in proportion, all that it has where that is more than it has. */
function expectShares(
  actual: readonly number[],
  total: number,
  least: number,
  parts: readonly number[],
  most: readonly number[],
): void {
  expect(sum(actual)).toBe(Math.min(total, sum(most)));
  // The height to which layers are filled, by bisection: least + height * part, as much as there is.
  const filled = (height: number): number[] =>
    parts.map((part, l) => Math.min(least + height * part, most[l] as number));
  let [low, high] = [0, 1e9];
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (sum(filled(middle)) < sum(actual)) low = middle;
    else high = middle;
  }
  for (const [l, share] of filled(high).entries()) {
    expect(Math.abs((actual[l] as number) - share)).toBeLessThan(1);
  }
}

const sum = (list: readonly number[]): number => list.reduce((a, b) => a + b, 0);

describe('what stays', () => {
  it('streamingLLM: the first and the newest', () => {
    const expected = [0, 1, 2, ...nested(7, (i) => keys - 7 + i)];
    expect(keptOf(streamingLLM({ budget: 10, sinks: 3 }), undefined)).toEqual([expected, expected]);
  });

  it('tova: what the last query looks at', () => {
    const seen = look(1);
    expect(tova({ budget: 9 }).observes(20)).toBe(1);
    expect(keptOf(tova({ budget: 9 }), seen)).toEqual(
      nested(kvHeads, (g) => bestAndNewest(sumOf(seen, headsOf(g)), 9, 1)),
    );
  });

  it('h2o: sums over all queries of all steps', () => {
    const policy = h2o({ budget: 12 });
    const layers = [newLayer(kvHeads)];
    const steps = [look(30, 30), look(10)];
    step(policy, layers, 30, () => steps[0]);
    step(policy, layers, 10, () => steps[1]);
    expect([policy.observes(30), policy.observes(10)]).toEqual([30, 10]);
    expect(compress(policy, layers).kept[0]).toEqual(
      nested(kvHeads, (g) => {
        const [first, second] = steps.map((seen) => sumOf(seen, headsOf(g))) as [
          number[],
          number[],
        ];
        return bestAndNewest(
          second.map((sum, s) => sum + (first[s] ?? 0)),
          12,
          6,
        );
      }),
    );
  });

  it('scissorhands: how often more than the average', () => {
    const seen = look(12);
    // Counts are often equal: of such keys the first.
    const counts = (g: number) =>
      nested(keys, (s) => {
        let count = 0;
        for (const head of headsOf(g)) {
          for (const row of seen[head] as number[][])
            count += (row[s] as number) > 1 / keys ? 1 : 0;
        }
        return count - s * 1e-6;
      });
    expect(keptOf(scissorhands({ budget: 10, window: 3 }), seen)).toEqual(
      nested(kvHeads, (g) => bestAndNewest(counts(g), 10, 3)),
    );
  });

  it('snapKV and pyramidKV: the largest of neighbours', () => {
    const seen = look(4);
    const pooled = (g: number) => largestOf(sumOf(seen, headsOf(g)), 3);
    const options = { budget: 10, window: 4, pool: 3 };
    for (const make of [snapKV, pyramidKV]) {
      // Neighbours have the same largest: of such keys the first.
      expect(keptOf(make(options), seen)).toEqual(
        nested(kvHeads, (g) =>
          bestAndNewest(
            pooled(g).map((x, s) => x - s * 1e-9),
            10,
            4,
          ),
        ),
      );
    }
  });

  it('cake: mean and variance over queries', () => {
    const seen = look(4);
    const scores = (g: number) =>
      nested(keys, (s) => {
        // Of each query head over its queries, then over heads.
        const ofHeads = headsOf(g).map((head) => {
          const column = (seen[head] as number[][]).map((row) => row[s] as number);
          const mean = column.reduce((a, b) => a + b, 0) / column.length;
          return mean + 50 * (column.reduce((a, b) => a + (b - mean) ** 2, 0) / column.length);
        });
        return ofHeads.reduce((a, b) => a + b, 0) / group;
      });
    for (const pool of [1, 3]) {
      expect(keptOf(cake({ budget: 10, window: 4, pool, gamma: 50 }), seen)).toEqual(
        nested(kvHeads, (g) => bestAndNewest(meanOf(scores(g), pool), 10, 4)),
      );
    }
  });

  it('chunkKV: chunks by their sum over all heads; layers share a choice', () => {
    const seen = [look(4), look(4)];
    const policy = chunkKV({ budget: 16, window: 4, chunk: 4, reuse: 2 });
    const layers = [newLayer(kvHeads), newLayer(kvHeads)];
    step(policy, layers, keys, (l) => seen[l]);
    const sums = sumOf(
      seen[0] as Weights,
      nested(kvHeads * group, (h) => h),
    );
    const chunks = nested(9, (c) => sums.slice(4 * c, 4 * c + 4).reduce((a, b) => a + b, 0));
    const expected = [
      ...largest(chunks, 3).flatMap((c) => nested(4, (i) => 4 * c + i)),
      ...nested(4, (i) => keys - 4 + i),
    ];
    expect(compress(policy, layers).kept).toEqual(nested(2, () => nested(kvHeads, () => expected)));
  });
});

describe('budgets', () => {
  it('pyramidKV: from 2 - 1 / beta times to 1 / beta', () => {
    const layers = nested(5, () => newLayer(1));
    const many = 200;
    const budgets = (options: object) => {
      const policy = pyramidKV({ budget: 84, window: 4, ...options });
      step(policy, layers, many - (layers[0]?.positions.length ?? 0), () => undefined);
      return compress(policy, layers).budgets;
    };
    // 80 keys a layer besides the window.
    expect(budgets({})).toEqual([156 + 4, 118 + 4, 80 + 4, 42 + 4, 4 + 4]);
    expect(budgets({ beta: 2 })).toEqual([124, 104, 84, 64, 44]);
    expect(budgets({ beta: 1 })).toEqual([84, 84, 84, 84, 84]);
    expect(() => pyramidKV({ budget: 20, beta: 0.5 })).toThrow(
      'pyramidKV: beta is 0.5, expected at least 1',
    );
  });

  it('pyramidKV: as steep as the first layer has keys for', () => {
    const layers = nested(5, () => newLayer(1));
    const policy = pyramidKV({ budget: 20, window: 4 });
    step(policy, layers, 28, () => undefined);
    // 24 of the first, so 8 of the last.
    expect(compress(policy, layers).budgets).toEqual([28, 24, 20, 16, 12]);
  });

  it.each([
    ['pyramidKV', (budget: number) => pyramidKV({ budget, window: 3 })],
    ['cake', (budget: number) => cake({ budget, window: 3, tau1: 0.3, tau2: 0.3 })],
    ['compressKV', (budget: number) => compressKV({ budget, window: 3, errors: [1, 5, 0, 30] })],
    ['d2o', (budget: number) => d2o({ budget, window: 2, temperature: 0.1 })],
  ])('%s: what a layer has no keys for, others keep; all of the budget is used', (_, make) => {
    for (const lengths of [
      [40, 40, 40, 40],
      [40, 12, 9, 40],
      [6, 40, 40, 40],
      [4, 5, 40, 6],
      [3, 5, 9, 2],
    ]) {
      for (const budget of [6, 13, 20, 37, 50]) {
        const policy = make(budget);
        const layers = lengths.map((length) => ({
          ...newLayer(kvHeads),
          positions: nested(length - 1, (i) => i),
          scores: nested(kvHeads, () => new Float32Array(length - 1)),
          keys: nested(length - 1, () => nested(kvHeads, () => [1, 2, 3, 4])),
          values: nested(length - 1, () => nested(kvHeads, () => [1, 2, 3, 4])),
        }));
        step(policy, layers, 1, (l) => look(2, lengths[l]), { first: 39 });
        const { budgets } = compress(policy, layers);
        expect(sum(budgets)).toBe(Math.min(4 * budget, sum(lengths)));
        for (const [l, count] of budgets.entries()) {
          expect(count).toBeLessThanOrEqual(lengths[l] as number);
          expect(count).toBeGreaterThanOrEqual(Math.min(3, lengths[l] as number));
        }
      }
    }
  });

  it('cake: by entropy and variance of the prompt, also while a text is generated', () => {
    const [tau1, tau2, budget, window] = [2, 0.5, 20, 4];
    const lengths = [40, 40, 25];
    const seen = lengths.map((length) => look(4, length));
    const preference = (all: Weights): number => {
      let [entropy, variance] = [0, 0];
      for (const rows of all) {
        for (const row of rows) for (const p of row) entropy -= p > 0 ? p * Math.log(p) : 0;
        for (let s = 0; s < (rows[0] as number[]).length; s++) {
          const column = rows.map((row) => row[s] as number);
          const mean = sum(column) / column.length;
          variance += column.reduce((a, b) => a + (b - mean) ** 2, 0) / column.length;
        }
      }
      return (entropy / all.length / 4) ** (1 / tau1) * (variance / all.length) ** (1 / tau2);
    };
    const parts = seen.map(preference);

    const policy = cake({ budget, window, tau1, tau2 });
    const layers = lengths.map((length) => ({
      ...newLayer(kvHeads),
      positions: nested(length - 1, (i) => i),
      scores: nested(kvHeads, () => new Float32Array(length - 1)),
    }));
    step(policy, layers, 1, (l) => seen[l], { first: 39, rows: (l) => rowsOf(lengths[l]) });
    for (const layer of layers) layer.keys = layer.values = rowsOf(layer.positions.length);
    const { budgets } = compress(policy, layers);
    expect(new Set(budgets).size).toBeGreaterThan(1);
    expectShares(budgets, budget * 3, window, parts, lengths);
    step(policy, layers, 1, (l) => look(1, (lengths[l] as number) + 1));
    const longer = lengths.map((length) => length + 1);
    expectShares(compress(policy, layers, 1).budgets, budget * 3, window, parts, longer);
  });
});

const rowsOf = (count = 0): number[][][] =>
  nested(count, () => nested(kvHeads, () => [1, 2, 3, 4]));
