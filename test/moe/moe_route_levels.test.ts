import { describe, expect, it } from 'vitest';
import { type MoERouteOptions, machine, moeRoute, Tensor } from '../../lib/index.js';
import { firstDifference, gaussian } from '../reference/random.js';

// Scores from 1 down to those that underflow; 1 to 70 experts, so that all tails occur.
const variants: MoERouteOptions[] = [
  { topK: 1 },
  { topK: 1, scoring: 'sigmoid' },
  { topK: 1, scoring: 'softmaxChosen' },
];

describe('moeRoute at every level', () => {
  it.each(variants)('gives the same bits: %o', (variant) => {
    for (let experts = 1; experts <= 70; experts += experts < 18 ? 1 : 13) {
      for (const spread of [1, 60, 2000]) {
        const tokens = 5;
        const data = gaussian(tokens * experts, experts + spread, spread);
        if (experts > 2) data[1] = Number.NEGATIVE_INFINITY;
        const logits = new Tensor('f32', data, [tokens, experts]);
        const results = machine().isas.map((isa) => {
          const scores = Tensor.zeros('f32', [tokens, experts]);
          const topK = Math.ceil(experts / 1.5);
          return { scores, ...moeRoute(logits, { ...variant, topK, scores, isa }) };
        });
        const [first] = results as [(typeof results)[0]];
        for (const other of results) {
          for (const part of ['scores', 'indices', 'weights'] as const) {
            expect(firstDifference(other[part].bytes, first[part].bytes)).toBe(-1);
          }
        }
      }
    }
  });

  it('chooses more than it inserts as it chooses fewer', () => {
    // 33 and more of a token's experts are sorted, up to 32 inserted.
    const logits = new Tensor(
      'f32',
      gaussian(100, 3).map((x) => Math.round(x * 4)),
      [1, 100],
    );
    const all = moeRoute(logits, { topK: 100 }).indices.toArray();
    expect(new Set(all).size).toBe(100);
    for (const topK of [1, 2, 31, 32, 33, 64]) {
      expect(moeRoute(logits, { topK }).indices.toArray()).toEqual(all.slice(0, topK));
    }
  });
});
