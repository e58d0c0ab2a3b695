// A llama-family decoder in float64, written from the formulas: every token attends anew to all before it, no cache.

/** Weights by GGUF name, row-major; shape of the network. */
export interface ReferenceModel {
  tensors: ReadonlyMap<string, { shape: readonly number[]; values: ArrayLike<number> }>;
  numLayers: number;
  numHeads: number;
  numKvHeads: number;
  headDim: number;
  epsilon: number;
  theta: number;
  mode: 'interleaved' | 'half';
  /** 0: all keys. */
  window: number;
  /** Divisor of positions. */
  linearFactor: number;
}

type Vector = number[];

/** Logits [tokens][vocabulary]. */
export function referenceLogits(model: ReferenceModel, tokens: readonly number[]): Vector[] {
  const vector = (name: string): Vector | undefined => {
    const tensor = model.tensors.get(name);
    return tensor && Array.from(tensor.values);
  };
  const norm = (x: Vector, weight: Vector): Vector => {
    const meanSquare = x.reduce((sum, value) => sum + value * value, 0) / x.length;
    return x.map(
      (value, i) => (value / Math.sqrt(meanSquare + model.epsilon)) * (weight[i] as number),
    );
  };
  const linear = (x: Vector, name: string): Vector => {
    const { shape, values } = model.tensors.get(`${name}.weight`) as {
      shape: number[];
      values: Vector;
    };
    const [rows = 0, cols = 0] = shape;
    const bias = vector(`${name}.bias`);
    return Array.from({ length: rows }, (_, n) => {
      let sum = bias?.[n] ?? 0;
      for (let k = 0; k < cols; k++) sum += (x[k] as number) * (values[n * cols + k] as number);
      return sum;
    });
  };
  const table = model.tensors.get('token_embd.weight') as { shape: number[]; values: Vector };
  const hidden = table.shape[1] as number;
  let stream = tokens.map((id) => Array.from(table.values).slice(id * hidden, (id + 1) * hidden));
  const heads = (x: Vector): Vector[] =>
    Array.from({ length: x.length / model.headDim }, (_, h) =>
      x.slice(h * model.headDim, (h + 1) * model.headDim),
    );
  const factors = vector('rope_freqs.weight');
  const turn = (head: Vector, position: number): Vector => {
    const out = [...head];
    const half = model.headDim / 2;
    for (let i = 0; i < half; i++) {
      const frequency = model.theta ** ((-2 * i) / model.headDim) / (factors?.[i] ?? 1);
      const angle = (position / model.linearFactor) * frequency;
      const [a, b] = model.mode === 'half' ? [i, i + half] : [2 * i, 2 * i + 1];
      out[a] = (head[a] as number) * Math.cos(angle) - (head[b] as number) * Math.sin(angle);
      out[b] = (head[a] as number) * Math.sin(angle) + (head[b] as number) * Math.cos(angle);
    }
    return out;
  };
  for (let layer = 0; layer < model.numLayers; layer++) {
    const name = `blk.${layer}`;
    const normed = stream.map((x) => norm(x, vector(`${name}.attn_norm.weight`) as Vector));
    const project = (part: string, normName?: string): Vector[][] =>
      normed.map((x, position) =>
        heads(linear(x, `${name}.${part}`)).map((head) => {
          const weight = normName === undefined ? undefined : vector(`${name}.${normName}.weight`);
          const scaled = weight === undefined ? head : norm(head, weight);
          return part === 'attn_v' ? scaled : turn(scaled, position);
        }),
      );
    const queries = project('attn_q', 'attn_q_norm');
    const keys = project('attn_k', 'attn_k_norm');
    const values = project('attn_v');
    const mixed = queries.map((query, t) =>
      query.flatMap((q, h) => {
        const g = Math.floor(h / (model.numHeads / model.numKvHeads));
        const first = model.window > 0 ? Math.max(0, t + 1 - model.window) : 0;
        const scores = Array.from(
          { length: t + 1 - first },
          (_, s) => dot(q, keys[first + s]?.[g] as Vector) / Math.sqrt(model.headDim),
        );
        const largest = Math.max(...scores);
        const powers = scores.map((score) => Math.exp(score - largest));
        const total = powers.reduce((sum, power) => sum + power, 0);
        return q.map((_, i) =>
          powers.reduce(
            (sum, power, s) => sum + (power / total) * (values[first + s]?.[g]?.[i] as number),
            0,
          ),
        );
      }),
    );
    stream = stream.map((x, t) => sum(x, linear(mixed[t] as Vector, `${name}.attn_output`)));
    stream = stream.map((x) => {
      const input = norm(x, vector(`${name}.ffn_norm.weight`) as Vector);
      const gate = linear(input, `${name}.ffn_gate`);
      const up = linear(input, `${name}.ffn_up`);
      const product = gate.map((value, i) => (value / (1 + Math.exp(-value))) * (up[i] as number));
      return sum(x, linear(product, `${name}.ffn_down`));
    });
  }
  const head = model.tensors.has('output.weight') ? 'output' : 'token_embd';
  return stream.map((x) => linear(norm(x, vector('output_norm.weight') as Vector), head));
}

function dot(a: Vector, b: Vector): number {
  return a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);
}

function sum(a: Vector, b: Vector): Vector {
  return a.map((value, i) => value + (b[i] as number));
}
