// silu(gate) * up
import { bitloom } from '../native.mjs';
import { elementwiseCases } from './shared.mjs';

export const cases = (options) =>
  elementwiseCases(
    options,
    'swiglu',
    2,
    5,
    (gate, up) => (gate / (1 + Math.exp(-gate))) * up,
    (inputs, run) => bitloom.swiglu(...inputs, run),
  );
