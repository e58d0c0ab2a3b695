import { describe, expect, it } from 'vitest';
import { layerNorm, layerNormAsync, Tensor } from '../../lib/index.js';
import { layerNormRow } from '../reference/norm.js';
import { gaussian } from '../reference/random.js';
import { expectClose, isasHere, thrown } from '../reference/views.js';
import { testNorm } from './norm_cases.js';

describe('layerNorm', () => {
  testNorm({
    name: 'layerNorm',
    vectors: 2,
    run: (x, [weight, bias], options) => layerNorm(x, weight, bias, options),
    runAsync: (x, [weight, bias], options) => layerNormAsync(x, weight, bias, options),
    row: (x, [weight, bias], epsilon) => layerNormRow(x, weight, bias, epsilon),
  });

  it.each(isasHere)(
    '%s: keeps its precision where the mean is a million times the deviation',
    (isa) => {
      const values = gaussian(4099, 3).map((value) => Math.fround(1e6 + value));
      const x = new Tensor('f32', values, [4099]);
      const expected = layerNormRow([...values], undefined, undefined, 1e-5);
      expectClose(
        layerNorm(x, undefined, undefined, { isa }).toArray(),
        expected,
        (i) => (1 + Math.abs(expected[i] as number)) * 2 ** -18,
      );
    },
  );

  it('gives the bias for a constant row', () => {
    const x = new Tensor('f32', new Array<number>(100).fill(1234.567), [100]);
    const bias = new Tensor('f32', gaussian(100), [100]);
    expect(layerNorm(x, undefined, bias).toArray()).toEqual(bias.toArray());
  });

  it('takes a bias without a weight, and checks its shape', () => {
    const x = new Tensor('f32', [1, 3], [2]);
    const y = layerNorm(x, undefined, new Tensor('f32', [10, 20], [2]), { epsilon: 0 });
    expect(y.toArray()).toEqual([9, 21]);
    expect(thrown(() => layerNorm(x, undefined, Tensor.zeros('f32', [3])))).toMatchObject({
      code: 'BL_INVALID_SHAPE',
      message: 'layerNorm: bias.shape[0] is 3, expected 2 (= x.shape[0])',
    });
  });
});
