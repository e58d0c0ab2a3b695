// Picking a token from 32000 logits.
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';

const variants = {
  greedy: { temperature: 0 },
  'top-k 40 top-p 0.95': { temperature: 0.8, topK: 40, topP: 0.95, seed: 1, position: 0 },
};

export function* cases({ tiny }) {
  const vocabulary = tiny ? 64 : 32000;
  for (const [name, options] of Object.entries(variants)) {
    yield {
      family: 'sampling',
      op: 'sample',
      case: `${vocabulary} ${name}`,
      format: 'f32',
      m: 1,
      n: vocabulary,
      k: 0,
      cold: false,
      type: 'f32',
      bytes: 4 * vocabulary,
      operations: vocabulary, // a comparison each
      prepare() {
        const logits = gaussianTensor([vocabulary]);
        return {
          variants: 1,
          body: (run) => bitloom.sample(logits, { ...run, ...options }),
          error: () => error(logits.data, bitloom.sample(logits, options), options),
        };
      },
    };
  }
}

/** Greedy: 1 if it is not the largest logit. Else the difference of the token's probability. */
function error(logits, { token, probability }, { temperature, topK, topP }) {
  const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
  if (temperature === 0) return token === order[0] ? 0 : 1;
  const kept = order.slice(0, topK);
  const powers = kept.map((id) => Math.exp((logits[id] - logits[order[0]]) / temperature));
  const total = powers.reduce((sum, value) => sum + value, 0);
  let mass = 0;
  let count = 0;
  while (mass < topP * total) mass += powers[count++];
  const at = kept.indexOf(token);
  return at < 0 || at >= count ? 1 : Math.abs(powers[at] / mass - probability);
}
