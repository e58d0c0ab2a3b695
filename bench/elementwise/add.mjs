// left + right
import { bitloom } from '../native.mjs';
import { elementwiseCases } from './shared.mjs';

export const cases = (options) =>
  elementwiseCases(
    options,
    'add',
    2,
    1,
    (left, right) => left + right,
    (inputs, run) => bitloom.add(...inputs, run),
  );
