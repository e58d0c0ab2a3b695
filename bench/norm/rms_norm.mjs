// x / sqrt(mean(x^2) + epsilon) * weight: one token and a prompt of a 4096-wide decoder.
import { activationCase } from '../activations.mjs';
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';

const epsilon = 1e-5;

export function* cases({ tiny }) {
  const d = tiny ? 64 : 4096;
  for (const m of tiny ? [1, 3] : [1, 256]) {
    yield activationCase(
      { family: 'norm', op: 'rms_norm', case: `${d}`, m, n: d, k: 0 },
      { bytes: 4 * (2 * m * d + d), operations: 4 * m * d },
      () => {
        const x = gaussianTensor([m, d]);
        const weight = gaussianTensor([d], 2);
        return {
          shape: [m, d],
          call: (run, out) => bitloom.rmsNorm(x, weight, { ...run, epsilon, out }),
          reference: () => firstRow(x.data.subarray(0, d), weight.data),
        };
      },
    );
  }
}

function firstRow(x, weight) {
  const squares = x.reduce((sum, value) => sum + value * value, 0);
  const scale = 1 / Math.sqrt(squares / x.length + epsilon);
  return Float64Array.from(x, (value, i) => value * scale * weight[i]);
}
