import { describe, expect, it } from 'vitest';
import {
  averageKeyRouter,
  hyperRouterWeights,
  MoEExperts,
  matmul,
  moeForward,
  moeRoute,
  quantize,
  unitWeights,
} from '../../lib/index.js';
import { uniformAt } from '../../lib/ops/moe/noise.js';
import { expectError, worst } from '../reference/op_checks.js';
import { gaussian } from '../reference/random.js';
import { f32 } from './cases.js';

const rows = <T>(values: ArrayLike<T>, width: number): T[][] =>
  Array.from({ length: values.length / width }, (_, i) =>
    Array.from(values).slice(i * width, (i + 1) * width),
  );

describe('router weights', () => {
  it('averageKeyRouter: means of keys, whose dense sum is that of all blocks', () => {
    const keys = f32(gaussian(12 * 5, 2), [12, 5]);
    const router = averageKeyRouter(keys, { blockSize: 3 });
    const expected = Array.from({ length: 20 }, (_, i) => {
      const own = [0, 1, 2].map(
        (j) => keys.data[(3 * Math.floor(i / 5) + j) * 5 + (i % 5)] as number,
      );
      return own.reduce((a, b) => a + b, 0) / 3;
    });
    expect(worst(router.data, expected, 1e-9, 2 ** -23)).toBeLessThanOrEqual(1);
    expect(unitWeights(moeRoute(f32([1, 2, 3, 4], [1, 4]), { topK: 4 })).weights.toArray()).toEqual(
      [1, 1, 1, 1],
    );
    expectError(
      () => averageKeyRouter(keys, { blockSize: 5 }),
      'BL_INVALID_SHAPE',
      'averageKeyRouter: keys.shape[0] is 12, expected a multiple of 5 (blockSize)',
    );
  });

  it('averageKeyRouter: logits are mean hidden states of blocks; all blocks are the dense layer', () => {
    const [ffn, hidden, blockSize] = [96, 64, 32];
    const keys = f32(gaussian(ffn * hidden, 2, 0.2), [ffn, hidden]);
    const values = f32(gaussian(hidden * ffn, 3, 0.2), [hidden, ffn]);
    const x = f32(gaussian(5 * hidden, 4), [5, hidden]);
    const states = matmul(x, quantize(keys, 'f32')).data; // [5, ffn]
    const router = quantize(averageKeyRouter(keys, { blockSize }), 'f32');
    const logits = matmul(x, router);
    const means = rows(states, blockSize).map((own) => own.reduce((a, b) => a + b, 0) / blockSize);
    expect(worst(logits.data, means, 1e-5, 0)).toBeLessThanOrEqual(1);
    const block = (b: number) => {
      const columns = rows(values.data, ffn).flatMap((row) =>
        row.slice(b * blockSize, (b + 1) * blockSize),
      );
      const own = keys.data.slice(b * blockSize * hidden, (b + 1) * blockSize * hidden);
      return {
        up: quantize(f32(own, [blockSize, hidden]), 'f32'),
        down: quantize(f32(columns, [hidden, blockSize]), 'f32'),
      };
    };
    const experts = new MoEExperts([0, 1, 2].map(block));
    const run = (topK: number) =>
      moeForward(x, unitWeights(moeRoute(logits, { topK })), experts, { activation: 'relu' });
    const dense = matmul(
      f32(
        states.map((h) => Math.max(h, 0)),
        [5, ffn],
      ),
      quantize(values, 'f32'),
    );
    expect(worst(run(3).data, Array.from(dense.data), 1e-4, 0)).toBeLessThanOrEqual(1);
    // One block: the one of the largest mean, whole.
    const best = rows(means, 3).map((own) => own.indexOf(Math.max(...own)));
    const expected = best.flatMap((b, t) =>
      Array.from({ length: hidden }, (_, n) => {
        let sum = 0;
        for (let i = b * blockSize; i < (b + 1) * blockSize; i++) {
          sum += Math.max(states[t * ffn + i] as number, 0) * (values.data[n * ffn + i] as number);
        }
        return sum;
      }),
    );
    expect(worst(run(1).data, expected, 1e-4, 0)).toBeLessThanOrEqual(1);
  });

  it('hyperRouterWeights: a fixed network of two layers makes all rows and biases', () => {
    const [dim, experts, hidden, width, seed] = [6, 3, 5, 7, 11];
    const embedding = f32(gaussian(dim, 5), [1, dim]);
    const options = { experts, hidden, width, seed };
    const { weight, bias } = hyperRouterWeights(embedding, options);
    let drawn = 0;
    const draw = (count: number, inputs: number) =>
      Array.from({ length: count }, () => (2 * uniformAt(seed, drawn++) - 1) / Math.sqrt(inputs));
    const layer = (count: number, input: readonly number[]) => {
      const w = rows(draw(count * input.length, input.length), input.length);
      const b = draw(count, input.length);
      return w.map((row, i) =>
        row.reduce((sum, x, j) => sum + x * (input[j] as number), b[i] as number),
      );
    };
    const middle = layer(width, Array.from(embedding.data)) as number[];
    const all = layer(
      experts * (hidden + 1),
      middle.map((x) => Math.max(x, 0)),
    ) as number[];
    const made = rows(all, hidden + 1);
    const weights = made.flatMap((row) => row.slice(0, hidden));
    expect(worst(weight.data, weights, 1e-12, 2 ** -23)).toBeLessThanOrEqual(1);
    expect(
      worst(
        bias.data,
        made.map((row) => row[hidden] as number),
        1e-12,
        2 ** -23,
      ),
    ).toBeLessThanOrEqual(1);
    expect([weight.shape, bias.shape]).toEqual([[experts, hidden], [experts]]);
    const other = hyperRouterWeights(embedding, { ...options, seed: 12 });
    expect(other.weight.toArray()).not.toEqual(weight.toArray());
    expectError(
      () => hyperRouterWeights(f32([1, 2], [2, 1]), options),
      'BL_INVALID_SHAPE',
      'hyperRouterWeights: embedding.shape[0] is 2, expected 1 (= one of the layer)',
    );
    expectError(
      () => hyperRouterWeights(embedding, { ...options, experts: 2 ** 20, hidden: 2 ** 24 }),
      'BL_OUT_OF_RANGE',
      'hyperRouterWeights: experts * (hidden + 1) is 17592187092992, expected at most 268435456',
    );
  });

  it('uniform numbers are spread evenly', () => {
    const n = 1e5;
    const values = Array.from({ length: n }, (_, i) => uniformAt(3, i));
    const mean = values.reduce((a, b) => a + b, 0) / n;
    const square = values.reduce((a, b) => a + (b - 0.5) ** 2, 0) / n;
    const next = values.reduce((a, b, i) => a + (b - 0.5) * ((values[i + 1] ?? 0.5) - 0.5), 0) / n;
    // Five standard deviations.
    expect(Math.abs(mean - 0.5)).toBeLessThan(5 / Math.sqrt(12 * n));
    expect(Math.abs(square - 1 / 12)).toBeLessThan(5 / Math.sqrt(180 * n));
    expect(Math.abs(next)).toBeLessThan(5 / (12 * Math.sqrt(n)));
  });
});
