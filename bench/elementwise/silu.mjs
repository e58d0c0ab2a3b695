// x / (1 + exp(-x))
import { bitloom } from '../native.mjs';
import { elementwiseCases } from './shared.mjs';

export const cases = (options) =>
  elementwiseCases(
    options,
    'silu',
    1,
    4,
    (x) => x / (1 + Math.exp(-x)),
    (inputs, run) => bitloom.silu(...inputs, run),
  );
