import { describe } from 'vitest';
import { swiglu, swigluAsync } from '../../lib/index.js';
import { silu } from '../reference/elementwise.js';
import { testBinary } from './binary.js';

describe('swiglu', () =>
  testBinary({
    name: 'swiglu',
    repeats: false,
    run: (left, right, options) => swiglu(left, right, options),
    runAsync: (left, right, options) => swigluAsync(left, right, options),
    reference: (gate, up) => silu(gate) * up,
    bound: (gate, up, y) =>
      10 * 2 ** -24 * Math.abs(y) +
      (gate < 0 && Number.isFinite(gate * up)
        ? Math.abs(gate) * 2 ** -147 * (1 + (gate < -87 ? Math.abs(up) : 0))
        : 0),
  }));
