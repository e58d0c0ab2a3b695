import { describe } from 'vitest';
import { silu, siluAsync } from '../../lib/index.js';
import { silu as reference } from '../reference/elementwise.js';
import { testUnary } from './unary.js';

describe('silu', () =>
  testUnary({
    name: 'silu',
    run: (x, options) => silu(x, options),
    runAsync: (x, options) => siluAsync(x, options),
    reference,
    bound: (x, y) => 8 * 2 ** -24 * Math.abs(y) + (x < -87 ? Math.abs(x) * 2 ** -147 : 0),
  }));
