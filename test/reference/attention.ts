// Attention in float64, written from the formula.

export interface AttentionShape {
  queries: number;
  keys: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  valueDim: number;
}

export interface AttentionReferenceOptions {
  scale?: number | undefined;
  causal?: boolean | undefined;
  window?: number | undefined;
}

/** q [queries, heads, headDim], k [keys, kvHeads, headDim], v [keys, kvHeads, valueDim], all row-major. */
export function attentionReference(
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  v: ArrayLike<number>,
  shape: AttentionShape,
  options: AttentionReferenceOptions = {},
): number[] {
  const { queries, keys, heads, kvHeads, headDim, valueDim } = shape;
  const scale = options.scale || 1 / Math.sqrt(headDim);
  const output: number[] = [];
  for (let t = 0; t < queries; t++) {
    const end = options.causal ? t + keys - queries + 1 : keys;
    const begin = options.window ? Math.max(0, end - options.window) : 0;
    for (let h = 0; h < heads; h++) {
      const g = Math.floor(h / (heads / kvHeads));
      const scores: number[] = [];
      for (let s = begin; s < end; s++) {
        let dot = 0;
        for (let i = 0; i < headDim; i++) {
          dot +=
            (q[(t * heads + h) * headDim + i] as number) *
            (k[(s * kvHeads + g) * headDim + i] as number);
        }
        scores.push(scale * dot);
      }
      const largest = scores.reduce((a, b) => Math.max(a, b));
      const weights = scores.map((score) => Math.exp(score - largest));
      const total = weights.reduce((a, b) => a + b);
      for (let i = 0; i < valueDim; i++) {
        let sum = 0;
        weights.forEach((weight, s) => {
          sum += weight * (v[((begin + s) * kvHeads + g) * valueDim + i] as number);
        });
        output.push(sum / total);
      }
    }
  }
  return output;
}
