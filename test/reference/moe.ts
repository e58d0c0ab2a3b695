/** What a router does to one token, from the formula in native/include/bitloom_moe.h. */
export interface Router {
  topK: number;
  scoring: 'softmax' | 'softmaxChosen' | 'sigmoid';
  bias?: readonly number[] | undefined;
  numGroups: number;
  topGroups: number;
  groupScore: 'max' | 'top2';
  normalize: boolean;
  scale: number;
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);

/** Experts and weights of a token's logits; scores of all experts. */
export function route(logits: readonly number[], router: Router) {
  const { topK, scoring, bias, numGroups, topGroups, groupScore, normalize, scale } = router;
  const experts = logits.map((_, e) => e);
  const largest = Math.max(...logits);
  const powers = logits.map((z) => Math.exp(z - largest));
  const total = sum(powers);
  const all =
    scoring === 'sigmoid'
      ? logits.map((z) => 1 / (1 + Math.exp(-z)))
      : powers.map((p) => p / total);
  const choice = logits.map((z, e) =>
    bias === undefined || z === Number.NEGATIVE_INFINITY
      ? z
      : (all[e] as number) + (bias[e] as number),
  );
  const byValue = (values: readonly number[]) => (a: number, b: number) =>
    values[a] === values[b] ? a - b : (values[a] as number) > (values[b] as number) ? -1 : 1;
  const size = logits.length / numGroups;
  const worth = Array.from({ length: numGroups }, (_, g) => {
    const two = groupScore === 'top2' && size > 1;
    const from = two && bias === undefined ? all : choice;
    const best = from.slice(g * size, (g + 1) * size).sort((a, b) => b - a);
    return two ? (best[0] as number) + (best[1] as number) : (best[0] as number);
  });
  const groups = worth
    .map((_, g) => g)
    .sort(byValue(worth))
    .slice(0, topGroups);
  const indices = experts
    .filter((e) => groups.includes(Math.floor(e / size)))
    .sort(byValue(choice))
    .slice(0, topK);
  const own = indices.map((e) => (scoring === 'sigmoid' ? all : powers)[e] as number);
  const chosen = sum(own);
  const weights = indices.map((e, i) => {
    if (normalize || scoring === 'softmaxChosen') {
      return chosen === 0 ? 0 : (scale * (own[i] as number)) / chosen;
    }
    return scale * (all[e] as number);
  });
  const scores =
    scoring === 'softmaxChosen'
      ? experts.map((e) => (indices.includes(e) ? (powers[e] as number) / chosen : 0))
      : all;
  return { indices, weights, scores };
}
