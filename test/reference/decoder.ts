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
  /** Norms of all heads together. */
  wholeNorm?: boolean;
  moe?: ReferenceMoE;
  /** Experts of low rank, by the name of their product. */
  lora?: ReadonlyMap<string, ReferenceLora>;
  /** Keys and values through a latent vector; `numKvHeads` is `numHeads` then. */
  latent?: { rank: number; rotaryDim: number; valueDim: number; transposed: boolean };
}

/** Experts of low rank: `scale * sum over the topK of the softmax, divided by their sum, of weight * up_e (down_e x)`. */
export interface ReferenceLora {
  /** [experts, K], [experts, rank, K], [experts, N, rank] */
  router: ArrayLike<number>;
  down: ArrayLike<number>;
  up: ArrayLike<number>;
  experts: number;
  topK: number;
  scale: number;
}

/** How tokens go to experts. */
export interface ReferenceMoE {
  numExperts: number;
  topK: number;
  denseLayers: number;
  sigmoid: boolean;
  normalize: boolean;
  scale: number;
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
    const lora = model.lora?.get(name);
    const more = lora && loraOf(lora, x, rows);
    return Array.from({ length: rows }, (_, n) => {
      let sum = (bias?.[n] ?? 0) + (more?.[n] ?? 0);
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
    const half = head.length / 2;
    for (let i = 0; i < half; i++) {
      const frequency = model.theta ** ((-2 * i) / head.length) / (factors?.[i] ?? 1);
      const angle = (position / model.linearFactor) * frequency;
      const [a, b] = model.mode === 'half' ? [i, i + half] : [2 * i, 2 * i + 1];
      out[a] = (head[a] as number) * Math.cos(angle) - (head[b] as number) * Math.sin(angle);
      out[b] = (head[a] as number) * Math.sin(angle) + (head[b] as number) * Math.cos(angle);
    }
    return out;
  };
  /** Queries, keys and values of each position and head. */
  const throughLatent = (
    normed: Vector[],
    name: string,
    { rank, rotaryDim, valueDim, transposed }: NonNullable<ReferenceModel['latent']>,
  ): [Vector[][], Vector[][], Vector[][]] => {
    const own = model.headDim - rotaryDim;
    const turned = (head: Vector, position: number) => [
      ...head.slice(0, own),
      ...turn(head.slice(own), position),
    ];
    const all = normed.map((x, position) => {
      const down = model.tensors.has(`${name}.attn_q_a.weight`)
        ? norm(linear(x, `${name}.attn_q_a`), vector(`${name}.attn_q_a_norm.weight`) as Vector)
        : undefined;
      const query =
        down === undefined ? linear(x, `${name}.attn_q`) : linear(down, `${name}.attn_q_b`);
      const both = linear(x, `${name}.attn_kv_a_mqa`);
      const c = norm(both.slice(0, rank), vector(`${name}.attn_kv_a_norm.weight`) as Vector);
      const rotary = turn(both.slice(rank), position);
      const keyAt = (h: number, i: number): number => {
        if (!transposed) return dot(rowOf(`${name}.attn_kv_b.weight`, h * (own + valueDim) + i), c);
        const values = vector(`${name}.attn_k_b.weight`) as Vector;
        return c.reduce((s, x, r) => s + x * (values[(h * rank + r) * own + i] as number), 0);
      };
      const valueAt = (h: number, i: number): number =>
        transposed
          ? dot(rowOf(`${name}.attn_v_b.weight`, h * valueDim + i), c)
          : dot(rowOf(`${name}.attn_kv_b.weight`, h * (own + valueDim) + own + i), c);
      const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);
      return {
        query: heads(query).map((head) => turned(head, position)),
        key: numbers(model.numHeads).map((h) => [
          ...numbers(own).map((i) => keyAt(h, i)),
          ...rotary,
        ]),
        value: numbers(model.numHeads).map((h) => numbers(valueDim).map((i) => valueAt(h, i))),
      };
    });
    return [all.map((a) => a.query), all.map((a) => a.key), all.map((a) => a.value)];
  };
  const rowOf = (name: string, row: number): Vector => {
    const { shape, values } = model.tensors.get(name) as { shape: number[]; values: Vector };
    const cols = shape.at(-1) as number;
    return Array.from(values.slice(row * cols, (row + 1) * cols));
  };
  const mlp = (x: Vector, nameOf: (part: string) => string): Vector => {
    const gate = linear(x, nameOf('gate'));
    const up = linear(x, nameOf('up'));
    const product = gate.map((value, i) => (value / (1 + Math.exp(-value))) * (up[i] as number));
    return linear(product, nameOf('down'));
  };
  const sigmoid = (z: number) => 1 / (1 + Math.exp(-z));
  const mixture = (x: Vector, name: string, moe: ReferenceMoE): Vector => {
    const logits = linear(x, `${name}.ffn_gate_inp`);
    const largest = Math.max(...logits);
    const total = logits.reduce((all, z) => all + Math.exp(z - largest), 0);
    const scores = logits.map((z) => (moe.sigmoid ? sigmoid(z) : Math.exp(z - largest) / total));
    const bias = vector(`${name}.exp_probs_b.bias`);
    const order = scores.map((_, e) => e);
    const choice = (e: number) => (scores[e] as number) + (bias?.[e] ?? 0);
    order.sort((a, b) => choice(b) - choice(a) || a - b);
    const chosen = order.slice(0, moe.topK);
    const all = moe.normalize ? chosen.reduce((s, e) => s + (scores[e] as number), 0) : 1;
    let result = x.map(() => 0);
    const addTo = (weight: number, values: Vector): void => {
      result = result.map((value, i) => value + weight * (values[i] as number));
    };
    for (const e of chosen) {
      addTo(
        (moe.scale * (scores[e] as number)) / all,
        mlp(x, (part) => `${name}.ffn_${part}.${e}`),
      );
    }
    if (model.tensors.has(`${name}.ffn_up_shexp.weight`)) {
      const gate = vector(`${name}.ffn_gate_inp_shexp.weight`);
      addTo(
        gate === undefined ? 1 : sigmoid(dot(gate, x)),
        mlp(x, (part) => `${name}.ffn_${part}_shexp`),
      );
    }
    return result;
  };
  for (let layer = 0; layer < model.numLayers; layer++) {
    const name = `blk.${layer}`;
    const normed = stream.map((x) => norm(x, vector(`${name}.attn_norm.weight`) as Vector));
    const projected = (x: Vector, part: string, normName?: string): Vector => {
      const row = linear(x, `${name}.${part}`);
      return normName !== undefined && model.wholeNorm
        ? norm(row, vector(`${name}.${normName}.weight`) as Vector)
        : row;
    };
    const project = (part: string, normName?: string): Vector[][] =>
      normed.map((x, position) =>
        heads(projected(x, part, normName)).map((head) => {
          const weight =
            normName === undefined || model.wholeNorm
              ? undefined
              : vector(`${name}.${normName}.weight`);
          const scaled = weight === undefined ? head : norm(head, weight);
          return part === 'attn_v' ? scaled : turn(scaled, position);
        }),
      );
    const { latent } = model;
    const [queries, keys, values] =
      latent === undefined
        ? [project('attn_q', 'attn_q_norm'), project('attn_k', 'attn_k_norm'), project('attn_v')]
        : throughLatent(normed, name, latent);
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
        const channels = values[0]?.[0]?.length ?? 0;
        return Array.from({ length: channels }, (_, i) =>
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
      const { moe } = model;
      if (moe !== undefined && layer >= moe.denseLayers) return sum(x, mixture(input, name, moe));
      return sum(
        x,
        mlp(input, (part) => `${name}.ffn_${part}`),
      );
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

function loraOf(
  { router, down, up, experts, topK, scale }: ReferenceLora,
  x: Vector,
  rows: number,
) {
  const product = (matrix: ArrayLike<number>, row: number, y: Vector) =>
    y.reduce((sum, value, k) => sum + value * (matrix[row * y.length + k] as number), 0);
  const rank = down.length / experts / x.length;
  const logits = Array.from({ length: experts }, (_, e) => product(router, e, x));
  const chosen = [...logits.keys()]
    .sort((a, b) => (logits[b] as number) - (logits[a] as number))
    .slice(0, topK);
  const total = chosen.reduce((sum, e) => sum + Math.exp(logits[e] as number), 0);
  const out: Vector = new Array<number>(rows).fill(0);
  for (const e of chosen) {
    const narrow = Array.from({ length: rank }, (_, r) => product(down, e * rank + r, x));
    const weight = (scale * Math.exp(logits[e] as number)) / total;
    for (let n = 0; n < rows; n++)
      out[n] = (out[n] as number) + weight * product(up, e * rows + n, narrow);
  }
  return out;
}
