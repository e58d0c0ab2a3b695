// Linear attention, 32 heads with states of 128 x 128: a prompt of 2048 tokens, and one token on states that lie in
// cache, or in memory as those of a whole model do.
import { coldBytes, copies, gaussian, gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';

const { Tensor } = bitloom;

/** [name, rule, axes of the log decays] */
const models = [
  ['decay per head', 'decay', 1],
  ['decay per token', 'decay', 2],
  ['decay per channel', 'decay', 3],
  ['gated delta', 'delta', 2],
];

export function* cases({ tiny }) {
  const [heads, channels, prompt] = tiny ? [2, 16, 20] : [32, 128, 2048];
  for (const [name, rule, axes] of models) {
    for (const [m, cold] of [
      [prompt, false],
      [1, false],
      [1, true],
    ]) {
      const stateBytes = 4 * heads * channels * channels;
      const vectors = 4 * m * heads * channels * 4 + (axes === 3 ? 4 * m * heads * channels : 0);
      yield {
        family: 'linear_attention',
        op: 'linear_attention',
        case: `${name} ${heads}x${channels}x${channels}${cold ? ' cold' : ''}`,
        format: 'f32',
        m,
        n: channels,
        k: channels,
        cold,
        type: 'f32',
        // The state is read and written.
        bytes: 2 * stateBytes + vectors,
        // By the recurrence: products with the state for the update, the query and, by the delta rule, the key.
        operations: 2 * (rule === 'delta' ? 3 : 2) * m * heads * channels * channels,
        prepare: () =>
          prepare({
            m,
            heads,
            channels,
            rule,
            axes,
            count: cold ? Math.ceil(coldBytes / stateBytes) : 1,
          }),
      };
    }
  }
}

function prepare({ m, heads, channels, rule, axes, count }) {
  const shape = [m, heads, channels];
  const q = gaussianTensor(shape);
  const k = new Tensor('f32', gaussian(m * heads * channels, 2, channels ** -0.5), shape);
  const v = gaussianTensor(shape, 3);
  // ln g about -0.05: a state remembers some 20 tokens.
  const sizes = [[heads], [m, heads], shape][axes - 1];
  const logs = gaussian(
    sizes.reduce((a, b) => a * b),
    4,
    0.05,
  ).map((x) => -Math.abs(x));
  const decay = new Tensor('f32', logs, sizes);
  const beta = new Tensor('f32', new Float32Array(m * heads).fill(0.5), [m, heads]);
  const options = { decay, rule, ...(rule === 'delta' ? { beta } : {}) };
  const stateShape = [1, heads, channels, channels];
  const states = copies(new Uint8Array(4 * heads * channels * channels), count).map(
    (bytes) => new Tensor('f32', bytes, stateShape),
  );
  const out = Tensor.zeros('f32', shape);
  return {
    variants: count,
    body: (run, variant = 0) =>
      bitloom.linearAttention(q, k, v, { ...run, ...options, state: states[variant], out }),
    error() {
      const { output } = bitloom.linearAttention(q, k, v, options);
      return relativeError(
        firstHead(output.data, heads, channels),
        reference({ m, heads, channels, rule, axes, q, k, v, logs }),
      );
    },
  };
}

/** Rows of head 0 of [tokens, heads, channels]. */
function firstHead(data, heads, channels) {
  return data.filter((_, i) => i % (heads * channels) < channels);
}

/** Output of head 0 by the recurrence. */
function reference({ m, heads, channels, rule, axes, q, k, v, logs }) {
  const state = new Float64Array(channels * channels);
  const output = new Float64Array(m * channels);
  for (let t = 0; t < m; t++) {
    const row = t * heads * channels;
    for (let i = 0; i < channels; i++) {
      const decay = Math.exp(logs[[0, t * heads, row + i][axes - 1]]);
      for (let j = 0; j < channels; j++) state[i * channels + j] *= decay;
    }
    for (let j = 0; j < channels; j++) {
      let present = 0;
      for (let i = 0; i < channels; i++) present += k.data[row + i] * state[i * channels + j];
      const update = rule === 'delta' ? 0.5 * (v.data[row + j] - present) : v.data[row + j];
      let sum = 0;
      for (let i = 0; i < channels; i++) {
        state[i * channels + j] += k.data[row + i] * update;
        sum += q.data[row + i] * state[i * channels + j];
      }
      output[t * channels + j] = sum / Math.sqrt(channels);
    }
  }
  return output;
}
