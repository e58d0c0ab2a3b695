// Attention over a contiguous cache, 32 heads of 128 channels with 8 shared key heads: one token with 512
// cached, and a prompt of 128 tokens.
import { activationCase } from '../activations.mjs';
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';

export function* cases({ tiny }) {
  const [heads, sharedHeads, channels] = tiny ? [4, 2, 16] : [32, 8, 128];
  for (const [m, keys] of tiny
    ? [[1, 8]]
    : [
        [1, 512],
        [128, 128],
      ]) {
    // Causal: query t sees keys - m + t + 1 keys.
    const seen = m * (keys - m) + (m * (m + 1)) / 2;
    yield activationCase(
      {
        family: 'attention',
        op: 'attention',
        case: `${heads}/${sharedHeads}x${channels} ${keys} keys`,
        m,
        n: keys,
        k: channels,
      },
      {
        bytes: 4 * channels * (2 * m * heads + 2 * keys * sharedHeads),
        operations: 4 * seen * heads * channels,
      },
      () => {
        const q = gaussianTensor([m, heads, channels]);
        const k = gaussianTensor([keys, sharedHeads, channels], 2);
        const v = gaussianTensor([keys, sharedHeads, channels], 3);
        return {
          shape: [m, heads, channels],
          call: (run, out) => bitloom.attention(q, k, v, { ...run, causal: true, out }),
          reference: () => firstHead(q, k, v),
        };
      },
    );
  }
}

/** Output of the first query's first head, where it sees all keys but those after it. */
export function firstHead(q, k, v, m = q.shape[0]) {
  const channels = q.shape[2];
  const [keys, sharedHeads] = k.shape;
  const row = (tensor, token) =>
    tensor.data.subarray(token * sharedHeads * channels).subarray(0, channels);
  const scores = Array.from({ length: keys - m + 1 }, (_, token) => {
    const key = row(k, token);
    let sum = 0;
    for (let i = 0; i < channels; i++) sum += q.data[i] * key[i];
    return sum / Math.sqrt(channels);
  });
  const largest = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - largest));
  const total = powers.reduce((sum, value) => sum + value, 0);
  const out = new Float64Array(channels);
  for (const [token, power] of powers.entries()) {
    const value = row(v, token);
    for (let i = 0; i < channels; i++) out[i] += (power / total) * value[i];
  }
  return out;
}
