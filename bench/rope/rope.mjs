// Rotary positions of 32 heads of 128 channels: one token and a prompt.
import { activationCase } from '../activations.mjs';
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';

const theta = 10000;
const start = 1000; // position of the first token

export function* cases({ tiny }) {
  const [heads, channels] = tiny ? [2, 16] : [32, 128];
  for (const m of tiny ? [1] : [1, 256]) {
    for (const mode of ['interleaved', 'half']) {
      yield activationCase(
        {
          family: 'rope',
          op: 'rope',
          case: `${heads}x${channels} ${mode}`,
          m,
          n: heads * channels,
          k: 0,
        },
        { bytes: 4 * 2 * m * heads * channels, operations: 3 * m * heads * channels },
        () => {
          const x = gaussianTensor([m, heads, channels]);
          const positions = new bitloom.Tensor(
            'i32',
            Int32Array.from({ length: m }, (_, i) => start + i),
            [m],
          );
          return {
            shape: [m, heads, channels],
            call: (run, out) => bitloom.rope(x, positions, { ...run, mode, theta, out }),
            reference: () => firstHead(x.data.subarray(0, channels), mode),
          };
        },
      );
    }
  }
}

function firstHead(x, mode) {
  const out = new Float64Array(x.length);
  for (let i = 0; i < x.length / 2; i++) {
    const [first, second] = mode === 'half' ? [i, i + x.length / 2] : [2 * i, 2 * i + 1];
    const angle = start * theta ** ((-2 * i) / x.length);
    out[first] = x[first] * Math.cos(angle) - x[second] * Math.sin(angle);
    out[second] = x[first] * Math.sin(angle) + x[second] * Math.cos(angle);
  }
  return out;
}
