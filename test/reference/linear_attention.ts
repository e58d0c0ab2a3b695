// Linear attention in float64: the recurrence, token by token.

export interface LinearAttentionShape {
  tokens: number;
  heads: number;
  kvHeads: number;
  keyDim: number;
  valueDim: number;
}

export interface LinearAttentionInput {
  /** Row-major. */
  q: ArrayLike<number>;
  k: ArrayLike<number>;
  v: ArrayLike<number>;
  /** [kvHeads, keyDim, valueDim]; default zeros. */
  state?: ArrayLike<number> | undefined;
  /** ln g of a token, kv head and channel. */
  log?: ((t: number, g: number, i: number) => number) | undefined;
  beta?: ((t: number, g: number) => number) | undefined;
  rule?: 'decay' | 'delta' | undefined;
  scale?: number | undefined;
}

export interface LinearAttentionExpected {
  /** [tokens, heads, valueDim] */
  output: number[];
  /** [kvHeads, keyDim, valueDim] */
  state: number[];
  /**
   * What errors of the outputs and of the state are measured by. Rule decay: the same sums over absolute values. Rule
   * delta, whose errors travel through contractions (for keys of length 1): for each column the largest length of the
   * state's column and of an update so far, times the length of the query.
   */
  outputSize: number[];
  stateSize: number[];
}

export function linearAttentionReference(
  shape: LinearAttentionShape,
  input: LinearAttentionInput,
): LinearAttentionExpected {
  const { tokens, heads, kvHeads, keyDim, valueDim } = shape;
  const { q, k, v, log = () => 0, beta = () => 1, rule = 'decay' } = input;
  const scale = input.scale || 1 / Math.sqrt(keyDim);
  const group = heads / kvHeads;
  const size = kvHeads * keyDim * valueDim;
  const state = Float64Array.from({ length: size }, (_, i) => input.state?.[i] ?? 0);
  const absolute = state.map(Math.abs);
  const longest = new Float64Array(kvHeads * valueDim);
  const output = new Array<number>(tokens * heads * valueDim);
  const outputSize = new Array<number>(output.length);
  const at = (g: number, i: number, j: number) => (g * keyDim + i) * valueDim + j;
  const decays = new Float64Array(keyDim);
  const key = new Float64Array(keyDim);
  for (let t = 0; t < tokens; t++) {
    for (let g = 0; g < kvHeads; g++) {
      for (let i = 0; i < keyDim; i++) {
        key[i] = k[(t * kvHeads + g) * keyDim + i] as number;
        decays[i] = Math.exp(log(t, g, i));
      }
      for (let j = 0; j < valueDim; j++) {
        let present = 0;
        for (let i = 0; i < keyDim; i++) {
          const place = at(g, i, j);
          state[place] = decays[i] === 0 ? 0 : (state[place] as number) * (decays[i] as number);
          absolute[place] = (absolute[place] as number) * (decays[i] as number);
          present += (key[i] as number) * (state[place] as number);
        }
        const value = v[(t * kvHeads + g) * valueDim + j] as number;
        const update = rule === 'delta' ? beta(t, g) * (value - present) : value;
        let square = 0;
        let keySquare = 0;
        for (let i = 0; i < keyDim; i++) {
          const place = at(g, i, j);
          const added = (key[i] as number) * update;
          const now = (state[place] as number) + added;
          state[place] = now;
          absolute[place] = (absolute[place] as number) + Math.abs(added);
          square += now * now;
          keySquare += (key[i] as number) * (key[i] as number);
        }
        const column = g * valueDim + j;
        const length = Math.sqrt(square) + Math.sqrt(keySquare) * Math.abs(update);
        longest[column] = Math.max(longest[column] as number, length);
      }
      for (let h = g * group; h < (g + 1) * group; h++) {
        const query = (i: number) => q[(t * heads + h) * keyDim + i] as number;
        for (let j = 0; j < valueDim; j++) {
          let sum = 0;
          let sizes = 0;
          let square = 0;
          for (let i = 0; i < keyDim; i++) {
            sum += query(i) * (state[at(g, i, j)] as number);
            sizes += Math.abs(query(i)) * (absolute[at(g, i, j)] as number);
            square += query(i) * query(i);
          }
          const place = (t * heads + h) * valueDim + j;
          output[place] = scale * sum;
          const length = Math.sqrt(square) * (longest[g * valueDim + j] as number);
          outputSize[place] = Math.abs(scale) * (rule === 'delta' ? length : sizes);
        }
      }
    }
  }
  const stateSize = Array.from(absolute, (sizes, place) => {
    const column = Math.floor(place / (keyDim * valueDim)) * valueDim + (place % valueDim);
    return rule === 'delta' ? (longest[column] as number) : sizes;
  });
  return { output, state: Array.from(state), outputSize, stateSize };
}
