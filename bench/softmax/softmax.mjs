// exp(x - max) / sum: the logits of a vocabulary of 32000.
import { activationCase } from '../activations.mjs';
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';

export function* cases({ tiny }) {
  const d = tiny ? 64 : 32000;
  yield activationCase(
    { family: 'softmax', op: 'softmax', case: `${d}`, m: 1, n: d, k: 0 },
    { bytes: 4 * 2 * d, operations: 5 * d }, // maximum, difference, exp (as one), sum, product
    () => {
      const x = gaussianTensor([1, d]);
      return {
        shape: [1, d],
        call: (run, out) => bitloom.softmax(x, { ...run, out }),
        reference() {
          const largest = x.data.reduce((most, value) => Math.max(most, value));
          const powers = Float64Array.from(x.data, (value) => Math.exp(value - largest));
          const sum = powers.reduce((total, value) => total + value, 0);
          return powers.map((value) => value / sum);
        },
      };
    },
  );
}
