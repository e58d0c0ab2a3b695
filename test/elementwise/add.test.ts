import { describe } from 'vitest';
import { add, addAsync } from '../../lib/index.js';
import { testBinary } from './binary.js';

describe('add', () =>
  testBinary({
    name: 'add',
    repeats: true,
    run: (left, right, options) => add(left, right, options),
    runAsync: (left, right, options) => addAsync(left, right, options),
    reference: (left, right) => Math.fround(left + right),
    bound: () => 0,
  }));
