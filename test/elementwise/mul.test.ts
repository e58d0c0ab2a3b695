import { describe } from 'vitest';
import { mul, mulAsync } from '../../lib/index.js';
import { testBinary } from './binary.js';

describe('mul', () =>
  testBinary({
    name: 'mul',
    repeats: true,
    run: (left, right, options) => mul(left, right, options),
    runAsync: (left, right, options) => mulAsync(left, right, options),
    reference: (left, right) => Math.fround(left * right),
    bound: () => 0,
  }));
