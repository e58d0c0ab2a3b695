import { describe } from 'vitest';
import { rmsNorm, rmsNormAsync } from '../../lib/index.js';
import { rmsNormRow } from '../reference/norm.js';
import { testNorm } from './norm_cases.js';

describe('rmsNorm', () =>
  testNorm({
    name: 'rmsNorm',
    vectors: 1,
    run: (x, [weight], options) => rmsNorm(x, weight, options),
    runAsync: (x, [weight], options) => rmsNormAsync(x, weight, options),
    row: (x, [weight], epsilon) => rmsNormRow(x, weight, epsilon),
  }));
