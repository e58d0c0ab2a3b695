// Policies that only choose: scores, budgets and choices against the formulas written out.
import { describe, expect, it } from 'vitest';
import {
  adore,
  citrus,
  compressKV,
  epiCache,
  guiKV,
  infiniRetri,
  prefixKV,
} from '../../../lib/nn/index.js';
import {
  compress,
  largest,
  mix,
  nested,
  newLayer,
  type Rows,
  step,
  sumOf,
  type Weights,
  weights,
} from './drive.js';

const keys = 20;
const meanOf = (list: readonly number[], size: number): number[] =>
  list.map((_, s) => {
    const half = (size - 1) / 2;
    return list.slice(Math.max(0, s - half), s + half + 1).reduce((a, b) => a + b, 0) / size;
  });

describe('compressKV', () => {
  const seen = nested(2, (l) => weights(4, 8, keys, l + 1));

  it('the retrieval heads of a layer choose for all; the mean of neighbours counts', () => {
    const policy = compressKV({ budget: 7, window: 3, pool: 3, heads: [[1, 2], [3]] });
    const layers = [newLayer(2), newLayer(2)];
    step(policy, layers, keys, (l) => (seen[l] as Weights).map((head) => head.slice(-3)));
    const { kept } = compress(policy, layers);
    for (const [l, heads] of [[1, 2], [3]].entries()) {
      const mean = sumOf(seen[l] as Weights, heads, 3).map((x) => x / heads.length);
      const expected = [...largest(meanOf(mean, 3), 4, keys - 3), 17, 18, 19];
      expect(kept[l]).toEqual([expected, expected]);
    }
  });

  it('layers share by the errors that their compression makes, none beyond its keys', () => {
    const layers = [newLayer(2), newLayer(2)];
    const run = (errors: number[]) => {
      const policy = compressKV({ budget: 10, window: 2, errors });
      step(policy, layers, layers[0]?.positions.length === 0 ? keys : 0, (l) => seen[l]);
      return compress(policy, layers).budgets;
    };
    expect(run([3, 1])).toEqual([2 + 12, 2 + 4]);
    expect(run([1, 0])).toEqual([18, 2]);
    expect(run([0, 0])).toEqual([10, 10]);
  });
});

describe('epiCache', () => {
  it('keeps what the patch looks at most, by kv head; layers share by (1 - similarity)^alpha', () => {
    const policy = epiCache({
      budget: 8,
      window: 2,
      patch: [1, 2, 3],
      similarity: [0.9, 0.7],
      alpha: 2,
    });
    const layers = [newLayer(2), newLayer(2)];
    step(policy, layers, keys, () => undefined);
    const seen = nested(2, (l) => weights(4, 3, keys, l + 11));
    step(policy, layers, 0, (l) => seen[l], { isProbe: true });
    const { kept, budgets } = compress(policy, layers);
    // 16 keys, 2 each; 12 by 0.01 to 0.09: 1.2 and 10.8
    expect(budgets).toEqual([2 + 1, 2 + 11]);
    for (const [l, observed] of seen.entries()) {
      for (const [head, group] of [
        [0, 1],
        [2, 3],
      ].entries()) {
        const most = nested(keys, (s) =>
          Math.max(...group.flatMap((h) => (observed[h] as number[][]).map((row) => row[s] ?? 0))),
        );
        const count = (budgets[l] as number) - 2;
        expect(kept[l]?.[head]).toEqual([...largest(most, count, keys - 2), 18, 19]);
      }
    }
  });
});

describe('prefixKV', () => {
  it('layers keep the same share of importance, the largest that the budget allows', () => {
    const budget = 8;
    const sinks = 2;
    const policy = prefixKV({ budget, sinks, distance: 3 });
    const layers = nested(3, () => newLayer(2));
    const seen = nested(3, (l) =>
      weights(4, keys, keys, l + 21).map((head) =>
        // Layers differ in how many keys have the weight.
        head.map((row) => row.map((x) => Math.fround(x ** (1 + l)))),
      ),
    );
    step(policy, layers, keys, (l) => seen[l]);
    const { budgets, kept } = compress(policy, layers, keys);
    const sums = seen.map((w) => sumOf(w, [0, 1, 2, 3]));
    const shares = sums.map((list) => {
      const sorted = list.slice(sinks, keys - 1).sort((a, b) => b - a);
      const total = sorted.reduce((a, b) => a + b, 0);
      return sorted.map((_, n) => sorted.slice(0, n + 1).reduce((a, b) => a + b, 0) / total);
    });
    // All p that matter: the shares themselves.
    const lengths = (p: number) => shares.map((list) => list.findIndex((c) => c >= p) + 1);
    const free = (budget - sinks - 1) * 3;
    const fitting = shares
      .flat()
      .filter((p) => lengths(p).reduce((a, b) => a + b, 0) <= free)
      .sort((a, b) => a - b);
    const expected = lengths(fitting.at(-1) as number).map((n) => n + sinks + 1);
    expect(budgets).toEqual(expected);
    expect(new Set(budgets).size).toBeGreaterThan(1);
    for (const [l, list] of kept.entries()) {
      const middle = (sums[l] as number[]).slice(sinks, keys - 1);
      const best = largest(middle, (expected[l] as number) - sinks - 1).map((i) => i + sinks);
      expect(list[0]).toEqual([0, 1, ...best, keys - 1]);
    }
    // While a text is generated, lengths stay.
    const later = compress(policy, layers, 1);
    expect(later.budgets).toEqual(expected);
    const count = expected[0] as number;
    expect(later.kept[0]?.[1]).toEqual([...nested(count - 3, (i) => i), 17, 18, 19]);
  });
});

describe('guiKV', () => {
  const seen = weights(4, 4, keys, 31);

  it('without screenshots: the mean of neighbours of the last queries', () => {
    const policy = guiKV({ budget: 9, window: 4, pool: 3 });
    expect(policy.hidden).toBe(false);
    const layers = [newLayer(2)];
    step(policy, layers, keys, () => seen);
    const { kept } = compress(policy, layers);
    const scores = meanOf(sumOf(seen, [0, 1]), 3);
    expect(kept[0]?.[0]).toEqual([...largest(scores, 5, keys - 4), 16, 17, 18, 19]);
  });

  it('saliency of the current screenshot, redundancy of the earlier one', () => {
    const screens = [
      [1, 8],
      [9, 14],
    ] as const;
    const policy = guiKV({
      budget: 9,
      window: 4,
      pool: 1,
      screens,
      alpha: 1.5,
      temperature: 2,
      rank: 2,
    });
    const layers = [newLayer(1)];
    const norms = Float32Array.from({ length: keys }, (_, s) => 1 + ((s * 7) % 5));
    const one = seen.slice(0, 2);
    step(policy, layers, keys, () => one, { hiddenNorms: norms });
    const all = layers[0]?.keys as Rows;
    const { kept } = compress(policy, layers);
    const scores = sumOf(one, [0, 1]);
    const current = [9, 10, 11, 12, 13];
    const values = current.map((s) => norms[s] as number);
    const mean = values.reduce((a, b) => a + b, 0) / 5;
    const deviation = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / 4) + 1e-8;
    const powers = values.map((x) => Math.exp((x - mean) / deviation / 2));
    const total = powers.reduce((a, b) => a + b, 0);
    current.forEach((s, i) => {
      scores[s] = (scores[s] as number) + (1.5 * (powers[i] as number)) / total;
    });
    // Distance to the plane of two keys, by the normal equations.
    const [a, b] = [all[9]?.[0] as number[], all[10]?.[0] as number[]];
    const dot = (x: number[], y: number[]) =>
      x.reduce((sum, v, i) => sum + v * (y[i] as number), 0);
    const residual = (k: number[]) => {
      const [aa, ab, bb, ak, bk] = [dot(a, a), dot(a, b), dot(b, b), dot(a, k), dot(b, k)];
      const det = aa * bb - ab * ab;
      const rest = mix([k, a, b], [1, -(ak * bb - bk * ab) / det, -(bk * aa - ak * ab) / det]);
      return Math.sqrt(dot(rest, rest));
    };
    const earlier = nested(7, (i) => 1 + i);
    const order = [...earlier].sort(
      (x, y) => residual(all[x]?.[0] as number[]) - residual(all[y]?.[0] as number[]),
    );
    for (const s of order.slice(0, Math.floor((1 - 9 / keys) * 7))) scores[s] = 0;
    expect(kept[0]?.[0]).toEqual([...largest(scores, 5, keys - 4), 16, 17, 18, 19]);
  });
});

describe('citrus and infiniRetri', () => {
  const seen = weights(4, 3, keys, 41);

  it('citrus: the weights of the instruction, by kv head', () => {
    const policy = citrus({ budget: 6, window: 2, instruction: [5, 6, 7] });
    expect([policy.probe, policy.observes(16), policy.observes(1)]).toEqual([[5, 6, 7], 0, 1]);
    const layers = [newLayer(2)];
    step(policy, layers, keys, () => undefined);
    step(policy, layers, 0, () => seen, { isProbe: true });
    const { kept } = compress(policy, layers);
    expect(kept[0]?.[0]).toEqual([...largest(sumOf(seen, [0, 1]), 4, keys - 2), 18, 19]);
    expect(kept[0]?.[1]).toEqual([...largest(sumOf(seen, [2, 3]), 4, keys - 2), 18, 19]);
  });

  it('infiniRetri: one layer decides, by phrases, for whole sentences', () => {
    const options = { budget: 9, window: 2, question: [5], phrase: 3, sentences: [0, 4, 9, 15] };
    const policy = infiniRetri(options);
    const layers = [newLayer(2), newLayer(2)];
    step(policy, layers, keys, () => undefined);
    const other = weights(4, 3, keys, 42);
    step(policy, layers, 0, (l) => (l === 1 ? seen : other), { isProbe: true });
    const { kept } = compress(policy, layers);
    const phrases = meanOf(sumOf(seen, [0, 1, 2, 3]), 3);
    const sentences = [
      [0, 1, 2, 3],
      [4, 5, 6, 7, 8],
      [9, 10, 11, 12, 13, 14],
      [15, 16, 17],
    ];
    const best = sentences
      .map((list) => ({ list, score: Math.max(...list.map((s) => phrases[s] as number)) }))
      .sort((a, b) => b.score - a.score);
    const expected: number[] = [];
    for (const { list } of best) {
      const room = 7 - expected.length;
      const part = list.map((s) => phrases[s] as number);
      expected.push(...largest(part, Math.min(room, list.length)).map((i) => list[i] as number));
    }
    const all = [...expected.sort((a, b) => a - b), 18, 19];
    expect(kept).toEqual([
      [all, all],
      [all, all],
    ]);
  });
});

describe('adore', () => {
  it('a moving average decides; released positions are told', () => {
    const released: [number, number[]][] = [];
    const policy = adore({
      budget: 6,
      window: 2,
      decay: 0.75,
      onRelease: (layer, positions) => released.push([layer, [...positions]]),
    });
    const layers = [newLayer(2), newLayer(2)];
    const first = nested(2, (l) => weights(4, 2, 12, 51 + l));
    const second = nested(2, (l) => weights(4, 2, keys, 75 + l));
    step(policy, layers, 12, (l) => first[l]);
    step(policy, layers, 8, (l) => second[l]);
    const { kept } = compress(policy, layers);
    const all = [0, 1, 2, 3];
    const mean = (w: Weights) => sumOf(w, all).map((x) => x / 8);
    const scores = nested(2, (l) =>
      mean(second[l] as Weights).map((x, s) =>
        s < 12 ? 0.75 * (mean(first[l] as Weights)[s] as number) + 0.25 * x : x,
      ),
    );
    // All layers together.
    const both = nested(keys, (s) => (scores[0]?.[s] as number) + (scores[1]?.[s] as number));
    const expected = [...largest(both, 4, keys - 2), 18, 19];
    expect(expected).not.toEqual([...largest(scores[0] as number[], 4, keys - 2), 18, 19]);
    expect(kept).toEqual(nested(2, () => [expected, expected]));
    const gone = nested(keys, (s) => s).filter((s) => !expected.includes(s));
    expect(released).toEqual([
      [0, gone],
      [1, gone],
    ]);
  });

  it('a controller may be given', () => {
    const policy = adore({
      budget: 6,
      window: 1,
      controller: (before, { keys: count }) =>
        Float32Array.from({ length: count }, (_, s) => (before[s] as number) + (s % 2)),
    });
    const layers = [newLayer(2)];
    step(policy, layers, keys, () => weights(4, 1, keys, 1));
    expect(compress(policy, layers).kept[0]?.[1]).toEqual([1, 3, 5, 7, 9, 19]);
  });
});
