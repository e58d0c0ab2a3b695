// (x - mean) / sqrt(variance + epsilon) * weight + bias: one token and a prompt.
import { activationCase } from '../activations.mjs';
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';

const epsilon = 1e-5;

export function* cases({ tiny }) {
  const d = tiny ? 64 : 4096;
  for (const m of tiny ? [1, 3] : [1, 256]) {
    yield activationCase(
      { family: 'norm', op: 'layer_norm', case: `${d}`, m, n: d, k: 0 },
      { bytes: 4 * (2 * m * d + 2 * d), operations: 7 * m * d },
      () => {
        const x = gaussianTensor([m, d]);
        const weight = gaussianTensor([d], 2);
        const bias = gaussianTensor([d], 3);
        return {
          shape: [m, d],
          call: (run, out) => bitloom.layerNorm(x, weight, bias, { ...run, epsilon, out }),
          reference: () => firstRow(x.data.subarray(0, d), weight.data, bias.data),
        };
      },
    );
  }
}

function firstRow(x, weight, bias) {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  const scale = 1 / Math.sqrt(variance + epsilon);
  return Float64Array.from(x, (value, i) => (value - mean) * scale * weight[i] + bias[i]);
}
