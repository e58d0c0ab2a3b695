// D2O, EMS, LOOK-M and Elastic Cache: what stays and what it becomes, against the formulas written out.
import { describe, expect, it } from 'vitest';
import { d2o, elasticCache, ems, lookM, prefixKV } from '../../../lib/nn/index.js';
import {
  compress,
  cosine,
  largest,
  mix,
  nested,
  newLayer,
  type Rows,
  rows,
  step,
  sumOf,
  type Weights,
  weights,
} from './drive.js';

const keys = 12;
const heads = [
  [0, 1],
  [2, 3],
]; // query heads of each kv head

function near(actual: readonly number[], expected: readonly number[]): void {
  expect(actual.length).toBe(expected.length);
  for (const [i, x] of expected.entries()) expect(actual[i]).toBeCloseTo(x, 5);
}

/** Rows that stay, of a head: what the formula makes of those that go to each. */
function expectRows(
  before: Rows,
  after: Rows,
  head: number,
  kept: readonly number[],
  expected: (row: number) => { from: number[]; weights: number[]; own: number },
): void {
  for (const row of kept) {
    const { from, weights: parts, own } = expected(row);
    const vectors = [row, ...from].map((r) => before[r]?.[head] as number[]);
    near(after[row]?.[head] as number[], mix(vectors, [own, ...parts]));
  }
}

/** Of each key that goes, the nearest that stays, by naive search. */
function nearest(all: Rows, head: number, kept: readonly number[], going: readonly number[]) {
  return going.map((g) => {
    const cosines = kept.map((k) => cosine(all[g]?.[head] as number[], all[k]?.[head] as number[]));
    const u = Math.max(...cosines);
    return { g, to: kept[cosines.indexOf(u)] as number, u };
  });
}

const goingOf = (kept: readonly number[], count = keys) =>
  nested(count, (s) => s).filter((s) => !kept.includes(s));

describe('d2o', () => {
  it('keeps by accumulated weights, recalls above a moving threshold, merges by exp(cosine)', () => {
    const policy = d2o({ budget: 5, window: 2, beta: 0.7 });
    const layers = [newLayer(2)];
    const first = weights(4, keys, keys, 1);
    step(policy, layers, keys, () => first);
    const before = layers[0]?.keys as Rows;
    const { kept, keys: after, values } = compress(policy, layers);
    const taus: number[] = [];
    for (const [head, queryHeads] of heads.entries()) {
      const stay = kept[0]?.[head] as number[];
      expect(stay).toEqual([...largest(sumOf(first, queryHeads), 3, keys - 2), 10, 11]);
      const found = nearest(before, head, stay, goingOf(stay));
      const tau = found.reduce((sum, { u }) => sum + u, 0) / found.length;
      taus.push(tau);
      const formula = (row: number) => {
        const recalled = found.filter(({ to, u }) => to === row && u >= tau);
        const total = recalled.reduce((sum, { u }) => sum + Math.exp(u), Math.E);
        return {
          from: recalled.map(({ g }) => g),
          weights: recalled.map(({ u }) => Math.exp(u) / total),
          own: Math.E / total,
        };
      };
      expectRows(before, after[0] as Rows, head, stay, formula);
      expectRows(layers[0]?.values as Rows, values[0] as Rows, head, stay, formula);
    }
    // Again: the threshold has moved.
    const again = compress(policy, layers);
    for (const [head] of heads.entries()) {
      const stay = again.kept[0]?.[head] as number[];
      const found = nearest(before, head, stay, goingOf(stay));
      const mean = found.reduce((sum, { u }) => sum + u, 0) / found.length;
      const tau = 0.7 * mean + 0.3 * (taus[head] as number);
      const merged = found.filter(({ u }) => u >= tau).map(({ to }) => to);
      for (const row of stay) {
        const changed = again.keys[0]?.[row]?.[head]?.some(
          (x, c) => x !== before[row]?.[head]?.[c],
        );
        expect(changed).toBe(merged.includes(row));
      }
    }
  });

  it('gives layers softmax(-variance of their column sums / its mean) of what is above the least', () => {
    const policy = d2o({ budget: 6, window: 1 });
    const layers = [newLayer(2), newLayer(2), newLayer(2)];
    const seen = nested(3, (l) => weights(4, 40, 40, l + 5));
    // One layer looks at one key alone.
    seen[2] = nested(4, () => nested(40, () => nested(40, (s) => (s === 0 ? 1 : 0))));
    step(policy, layers, 40, (l) => seen[l]);
    const variances = seen.map((w) => {
      const sums = sumOf(w, [0, 1, 2, 3]);
      const mean = sums.reduce((a, b) => a + b, 0) / 40;
      return sums.reduce((a, b) => a + (b - mean) ** 2, 0) / 40;
    });
    const mean = variances.reduce((a, b) => a + b, 0) / 3;
    const powers = variances.map((v) => Math.exp(-v / mean));
    const total = powers.reduce((a, b) => a + b, 0);
    const { budgets } = compress(policy, layers);
    expect(budgets.reduce((a, b) => a + b, 0)).toBe(6 * 3);
    for (const [l, p] of powers.entries()) {
      expect(Math.abs((budgets[l] as number) - (2 + (4 * 3 * p) / total))).toBeLessThan(1);
    }
    expect(budgets[2]).toBeLessThan(budgets[0] as number);
  });
});

describe('ems', () => {
  it('scores by the larger of global and local shares, evicts, and merges the rest above a redundancy', () => {
    const options = { budget: 4, window: 2, mergeable: 1, threshold: 0.1 };
    const policy = ems(options);
    const layers = [newLayer(2)];
    const [first, second] = [weights(4, 8, 8, 3), weights(4, 4, keys, 4)];
    step(policy, layers, 8, () => first);
    step(policy, layers, 4, () => second);
    const before = layers[0]?.keys as Rows;
    const ofValues = rows(keys, 2, 4, 77);
    (layers[0] as { values: Rows }).values = ofValues;
    const outcomes = { merged: 0, unlikeValues: 0 };
    const { kept, keys: after, values } = compress(policy, layers);
    for (const [head, queryHeads] of heads.entries()) {
      const sums = sumOf(second, queryHeads).map((x, s) => x + (sumOf(first, queryHeads)[s] ?? 0));
      const global = sums.map((x, s) => x / (keys - s));
      const local = sumOf(second, queryHeads, 2);
      const total = (list: number[]) => list.reduce((a, b) => a + b, 0);
      const scores = global.map((x, s) =>
        Math.max(x / total(global), (local[s] as number) / total(local)),
      );
      const stay = kept[0]?.[head] as number[];
      expect(stay).toEqual([...largest(scores, 2, keys - 2), 10, 11]);
      const going = goingOf(stay);
      const candidates = largest(
        going.map((s) => scores[s] as number),
        4,
      ).map((i) => going[i] as number);
      const merged = nearest(before, head, stay, candidates).filter(({ g, to, u }) => {
        const v = cosine(ofValues[g]?.[head] as number[], ofValues[to]?.[head] as number[]);
        const isMerged = u > 0 && v > 0 && u * v >= 0.1;
        if (isMerged) outcomes.merged++;
        else if (u >= 0.1 && v < 0.1) outcomes.unlikeValues++;
        return isMerged;
      });
      const formula = (row: number) => {
        const mine = merged.filter(({ to }) => to === row).map(({ g }) => g);
        const sum = [row, ...mine].reduce((a, s) => a + (scores[s] as number), 0);
        return {
          from: mine,
          weights: mine.map((s) => (scores[s] as number) / sum),
          own: (scores[row] as number) / sum,
        };
      };
      expectRows(ofValues, values[0] as Rows, head, stay, formula);
      // Keys: directions and lengths apart.
      for (const row of stay) {
        const { from, weights: parts, own } = formula(row);
        const vectors = [row, ...from].map((r) => before[r]?.[head] as number[]);
        const lengths = vectors.map((v) => Math.sqrt(v.reduce((sum, x) => sum + x * x, 0)));
        const units = vectors.map((v, i) => v.map((x) => x / (lengths[i] as number)));
        const direction = mix(units, [own, ...parts]);
        const length = Math.sqrt(direction.reduce((sum, x) => sum + x * x, 0));
        const wanted = [own, ...parts].reduce((sum, w, i) => sum + w * (lengths[i] as number), 0);
        const expected = direction.map((x) => (x / length) * wanted);
        near(after[0]?.[row]?.[head] as number[], expected);
      }
    }
    // Values decide as well as keys.
    expect(outcomes.merged).toBeGreaterThan(0);
    expect(outcomes.unlikeValues).toBeGreaterThan(0);
  });
});

describe('lookM', () => {
  const images = [[2, 8]] as const;
  const seen: Weights = weights(4, keys, keys, 7);

  it.each(['average', 'pivotal', 'weighted'] as const)('text first; %s merge', (merge) => {
    const policy = lookM({ budget: 6, window: 2, images, merge });
    const layers = [newLayer(2)];
    step(policy, layers, keys, () => seen);
    const before = layers[0]?.keys as Rows;
    const { kept, keys: after } = compress(policy, layers);
    for (const [head, queryHeads] of heads.entries()) {
      const sums = sumOf(seen, queryHeads);
      const prior = sums.map((x, s) => (s >= 2 && s < 8 ? x : x + Math.max(...sums)));
      const stay = kept[0]?.[head] as number[];
      expect(stay).toEqual([...largest(prior, 4, keys - 2), 10, 11]);
      const found = nearest(before, head, stay, goingOf(stay));
      expectRows(before, after[0] as Rows, head, stay, (row) => {
        const mine = found.filter(({ to }) => to === row);
        const n = mine.length;
        if (merge === 'pivotal') {
          // (k + sum of (k + k_i) / 2) / (n + 1)
          return {
            from: mine.map(({ g }) => g),
            weights: mine.map(() => 0.5 / (n + 1)),
            own: (1 + 0.5 * n) / (n + 1),
          };
        }
        return {
          from: mine.map(({ g }) => g),
          weights: mine.map(({ u }) => (merge === 'average' ? 1 : u) / (n + 1)),
          own: 1 / (n + 1),
        };
      });
    }
  });

  it('without images, or without a merge, it is an eviction by accumulated weights', () => {
    for (const options of [{}, { images: [[0, keys]] as const }]) {
      const policy = lookM({ budget: 6, window: 2, merge: 'none', ...options });
      const layers = [newLayer(2)];
      step(policy, layers, keys, () => seen);
      const { kept, keys: after } = compress(policy, layers);
      expect(kept[0]?.[0]).toEqual([...largest(sumOf(seen, [0, 1]), 4, keys - 2), 10, 11]);
      expect(after[0]).toEqual(layers[0]?.keys);
    }
  });
});

describe('elasticCache', () => {
  it('a prompt: buckets around anchors; then a fixed place', () => {
    const policy = elasticCache({ budget: 5, sinks: 1, distance: 2 });
    const layers = [newLayer(2)];
    const seen = weights(4, keys, keys, 9);
    step(policy, layers, keys, () => seen);
    const before = layers[0]?.keys as Rows;
    const { kept, keys: after } = compress(policy, layers, keys);
    const sums = sumOf(seen, [0, 1, 2, 3]);
    const best = largest(sums.slice(1, keys - 1), 3).map((i) => i + 1);
    const anchors = [0, ...best, keys - 1];
    expect(kept[0]).toEqual([anchors, anchors]);
    for (const head of [0, 1]) {
      expectRows(before, after[0] as Rows, head, anchors, (row) => {
        const bucket = goingOf(anchors).filter((s) => {
          const distances = anchors.map((a) => Math.abs(a - s));
          return anchors[distances.indexOf(Math.min(...distances))] === row;
        });
        const size = bucket.length + 1;
        return { from: bucket, weights: bucket.map(() => 1 / size), own: 1 / size };
      });
    }
    const later = newLayer(2);
    Object.assign(later, { ...layers[0], keys: rows(keys, 2, 4, 3) });
    const generated = compress(policy, [later], 1);
    expect(generated.kept[0]?.[0]).toEqual([0, 1, 2, 10, 11]);
    expect(generated.keys[0]).toEqual(later.keys);
  });

  it.each([
    ['elasticCache', elasticCache],
    ['prefixKV', prefixKV],
  ] as const)('%s keeps the newest `window` tokens of a prompt', (_, make) => {
    // Nothing looks at the newest five but themselves, less than at any other key.
    const seen: Weights = nested(4, () =>
      nested(keys, () => nested(keys, (s) => (s < keys - 5 ? (s + 1) / 100 : 1e-4))),
    );
    for (const window of [1, 3, 4]) {
      const policy = make({ budget: 6, sinks: 1, window });
      const layers = [newLayer(2)];
      step(policy, layers, keys, () => seen);
      const { kept } = compress(policy, layers, keys);
      const best = nested(5 - window, (i) => keys - 5 - (5 - window) + i);
      const expected = [0, ...best, ...nested(window, (i) => keys - window + i)];
      expect(kept[0]).toEqual([expected, expected]);
    }
    expect(() => make({ budget: 6, window: 0 })).toThrow(
      /window is 0, expected a whole number of at least 1/,
    );
  });
});
