import { describe, expect, it } from 'vitest';
import { type GeluApproximation, gelu, geluAsync, Tensor } from '../../lib/index.js';
import { erfc, geluErf, geluTanh, geluTanhArgument } from '../reference/elementwise.js';
import { thrown } from '../reference/views.js';
import { testUnary } from './unary.js';

describe('gelu, erf', () => {
  it('has a reference that knows erfc', () => {
    // Values of DLMF's definition to 16 digits (mpmath).
    expect(erfc(0.5)).toBeCloseTo(0.4795001221869535, 15);
    expect(erfc(3) / 2.209049699858544e-5).toBeCloseTo(1, 12);
    expect(erfc(-1)).toBeCloseTo(1.8427007929497148, 14);
  });
  testUnary({
    name: 'gelu',
    run: (x, options) => gelu(x, options),
    runAsync: (x, options) => geluAsync(x, options),
    reference: geluErf,
    bound: (x, y) => 14 * 2 ** -24 * Math.abs(y) + (x < -13 ? Math.abs(x) * 2 ** -147 : 0),
  });
  it('refuses an unknown approximation', () => {
    const approximation = 'fast' as GeluApproximation;
    expect(thrown(() => gelu(Tensor.zeros('f32', [1]), { approximation }))).toEqual({
      code: 'BL_INVALID_ARGUMENT',
      name: 'TypeError',
      message: 'gelu: approximation is "fast", expected erf or tanh',
    });
  });
});

describe('gelu, tanh', () =>
  testUnary({
    name: 'gelu',
    run: (x, options) => gelu(x, { approximation: 'tanh', ...options }),
    runAsync: (x, options) => geluAsync(x, { approximation: 'tanh', ...options }),
    reference: geluTanh,
    bound: (x, y) =>
      (y === 0 ? 0 : (12 + 8 * Math.abs(geluTanhArgument(x))) * 2 ** -24 * Math.abs(y)) +
      (x < -10 ? Math.abs(x) * 2 ** -147 : 0),
  }));
