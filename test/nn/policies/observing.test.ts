// Policies that score by what the last queries look at: scores, budgets and choices against the formulas written out.
import { describe, expect, it } from 'vitest';
import {
  type CachePolicy,
  cake,
  chunkKV,
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
        const column = headsOf(g).flatMap((head) =>
          (seen[head] as number[][]).map((row) => row[s] as number),
        );
        const mean = column.reduce((a, b) => a + b, 0) / column.length;
        return mean + 50 * (column.reduce((a, b) => a + (b - mean) ** 2, 0) / column.length);
      });
    expect(keptOf(cake({ budget: 10, window: 4, pool: 1, gamma: 50 }), seen)).toEqual(
      nested(kvHeads, (g) => bestAndNewest(scores(g), 10, 4)),
    );
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
  it('pyramidKV: from 1.5 to 0.5 times', () => {
    const layers = nested(5, () => newLayer(1));
    const policy = pyramidKV({ budget: 20, window: 4 });
    step(policy, layers, keys, () => weights(1, 4, keys, 1));
    // 16 keys a layer besides the window.
    expect(compress(policy, layers).budgets).toEqual([28, 24, 20, 16, 12]);
  });

  it('cake: by entropy and variance of the prompt, also while a text is generated', () => {
    const [tau1, tau2, budget, window] = [2, 0.5, 20, 4];
    const seen = nested(3, () => look(4));
    const preference = (all: Weights): number => {
      let [entropy, variance] = [0, 0];
      for (const rows of all) {
        for (const row of rows) for (const p of row) entropy -= p > 0 ? p * Math.log(p) : 0;
        for (let s = 0; s < keys; s++) {
          const column = rows.map((row) => row[s] as number);
          const mean = column.reduce((a, b) => a + b, 0) / column.length;
          const sum = column.reduce((a, b) => a + (b - mean) ** 2, 0);
          variance += sum / column.length / keys;
        }
      }
      return (entropy / all.length / 4) ** (1 / tau1) * (variance / all.length) ** (1 / tau2);
    };
    const parts = seen.map(preference);
    const total = parts.reduce((a, b) => a + b, 0);
    const expected = parts.map((x) => window + Math.floor(((budget - window) * 3 * x) / total));
    expect(new Set(expected).size).toBeGreaterThan(1);

    const policy = cake({ budget, window, tau1, tau2 });
    const layers = nested(3, () => newLayer(kvHeads));
    step(policy, layers, keys, (l) => seen[l]);
    expect(compress(policy, layers).budgets).toEqual(expected);
    step(policy, layers, 1, () => look(1, keys + 1));
    expect(compress(policy, layers, 1).budgets).toEqual(expected);
  });
});
