// x * Phi(x), by its tanh approximation.
import { bitloom } from '../native.mjs';
import { elementwiseCases } from './shared.mjs';

const formula = (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

export const cases = (options) =>
  elementwiseCases(options, 'gelu', 1, 8, formula, ([x], run) =>
    bitloom.gelu(x, { ...run, approximation: 'tanh' }),
  );
