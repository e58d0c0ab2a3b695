// A router: 256 tokens to 8 of 128 experts, and to 2 of 8.
import { activationCase } from '../activations.mjs';
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';

export function* cases({ tiny }) {
  if (tiny) {
    yield routeCase(3, 8, 2);
    return;
  }
  yield routeCase(256, 128, 8);
  yield routeCase(256, 8, 2);
}

function routeCase(tokens, experts, topK) {
  return activationCase(
    {
      family: 'moe',
      op: 'moe_route',
      case: `top ${topK} of ${experts}`,
      m: tokens,
      n: experts,
      k: topK,
    },
    { bytes: 4 * tokens * (experts + 2 * topK), operations: 5 * tokens * experts },
    () => {
      const logits = gaussianTensor([tokens, experts]);
      const indices = bitloom.Tensor.zeros('i32', [tokens, topK]);
      return {
        shape: [tokens, topK],
        call: (run, weights) =>
          bitloom.moeRoute(logits, { ...run, topK, out: { indices, weights } }),
        reference() {
          const z = Array.from(logits.data.slice(0, experts));
          const total = z.reduce((sum, x) => sum + Math.exp(x), 0);
          return Float64Array.from(z.map((x) => Math.exp(x) / total).sort((a, b) => b - a)).slice(
            0,
            topK,
          );
        },
      };
    },
  );
}
