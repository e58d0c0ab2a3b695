// Small models with random weights of any architecture, as GGUF content and for the float64 reference.
import type { GGUFContent, GGUFTensorInput, GGUFValue } from '../../lib/io/index.js';
import type { ReferenceModel } from '../reference/decoder.js';

/** Models with experts besides llama's. */
export type MixtureArchitecture = 'qwen2moe' | 'qwen3moe' | 'olmoe' | 'deepseek';

export interface RandomModelOptions {
  architecture?: 'llama' | 'qwen2' | 'qwen3' | MixtureArchitecture;
  seed?: number;
  /** A matrix of its own for the output. */
  untied?: boolean;
  freqFactors?: boolean;
  linearFactor?: number;
  window?: number;
  hidden?: number;
  intermediate?: number;
  layers?: number;
  vocab?: number;
  context?: number;
  /** 0: none. */
  experts?: number;
  topK?: number;
  expertSize?: number;
  /** A tensor for each expert in place of a stack; odd ones are twice as wide. */
  separate?: boolean;
}

/** Numbers in [-1, 1), the same for the same seed (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

/** A model without tokenizer; metadata and tensors may be changed before it is written. */
export function randomModel(options: RandomModelOptions = {}): {
  content: GGUFContent & { metadata: Map<string, GGUFValue>; tensors: GGUFTensorInput[] };
  reference: ReferenceModel;
} {
  const { architecture = 'llama', seed = 1, hidden = 64, intermediate = 96, layers = 2 } = options;
  const { experts = 0, topK = 2, expertSize = 32 } = options;
  const denseLayers = architecture === 'deepseek' ? 1 : 0;
  const { vocab = 50, context = 128, linearFactor = 1, window = 0 } = options;
  const numHeads = 4;
  const numKvHeads = architecture === 'olmoe' ? 4 : 2;
  // qwen3 has heads that are wider than their share of the hidden size.
  const isQwen3 = architecture.startsWith('qwen3');
  const headDim = isQwen3 ? hidden / 2 : hidden / numHeads;
  const theta = architecture === 'llama' || architecture === 'deepseek' ? 10000 : 1e6;
  const epsilon = 1e-5;
  const random = randomNumbers(seed);
  const tensors = new Map<string, { shape: readonly number[]; values: Float32Array }>();
  const add = (name: string, shape: number[], center: number, spread: number): void => {
    const count = shape.reduce((product, size) => product * size, 1);
    tensors.set(name, {
      shape,
      values: Float32Array.from({ length: count }, () => center + spread * random()),
    });
  };
  const matrix = (name: string, rows: number, cols: number): void =>
    add(name, [rows, cols], 0, 2 / Math.sqrt(cols));
  // Each expert by itself, as the reference reads it.
  const addExperts = (name: string): void => {
    matrix(`${name}.ffn_gate_inp.weight`, experts, hidden);
    for (let e = 0; e < experts; e++) {
      const width = options.separate && e % 2 === 1 ? 2 * expertSize : expertSize;
      matrix(`${name}.ffn_gate.${e}.weight`, width, hidden);
      matrix(`${name}.ffn_up.${e}.weight`, width, hidden);
      matrix(`${name}.ffn_down.${e}.weight`, hidden, width);
    }
    if (architecture !== 'qwen2moe' && architecture !== 'deepseek') return;
    matrix(`${name}.ffn_gate_shexp.weight`, intermediate, hidden);
    matrix(`${name}.ffn_up_shexp.weight`, intermediate, hidden);
    matrix(`${name}.ffn_down_shexp.weight`, hidden, intermediate);
    if (architecture === 'qwen2moe') {
      add(`${name}.ffn_gate_inp_shexp.weight`, [hidden], 0, 2 / Math.sqrt(hidden));
    }
  };
  matrix('token_embd.weight', vocab, hidden);
  add('output_norm.weight', [hidden], 1, 0.3);
  if (options.untied) matrix('output.weight', vocab, hidden);
  if (options.freqFactors) add('rope_freqs.weight', [headDim / 2], 3, 2);
  for (let i = 0; i < layers; i++) {
    const name = `blk.${i}`;
    add(`${name}.attn_norm.weight`, [hidden], 1, 0.3);
    matrix(`${name}.attn_q.weight`, numHeads * headDim, hidden);
    matrix(`${name}.attn_k.weight`, numKvHeads * headDim, hidden);
    matrix(`${name}.attn_v.weight`, numKvHeads * headDim, hidden);
    matrix(`${name}.attn_output.weight`, hidden, numHeads * headDim);
    if (architecture.startsWith('qwen2')) {
      add(`${name}.attn_q.bias`, [numHeads * headDim], 0, 1);
      add(`${name}.attn_k.bias`, [numKvHeads * headDim], 0, 1);
      add(`${name}.attn_v.bias`, [numKvHeads * headDim], 0, 1);
    }
    if (isQwen3) {
      add(`${name}.attn_q_norm.weight`, [headDim], 1, 0.3);
      add(`${name}.attn_k_norm.weight`, [headDim], 1, 0.3);
    }
    if (architecture === 'olmoe') {
      add(`${name}.attn_q_norm.weight`, [numHeads * headDim], 1, 0.3);
      add(`${name}.attn_k_norm.weight`, [numKvHeads * headDim], 1, 0.3);
    }
    add(`${name}.ffn_norm.weight`, [hidden], 1, 0.3);
    if (experts > 0 && i >= denseLayers) {
      addExperts(name);
      continue;
    }
    matrix(`${name}.ffn_gate.weight`, intermediate, hidden);
    matrix(`${name}.ffn_up.weight`, intermediate, hidden);
    matrix(`${name}.ffn_down.weight`, hidden, intermediate);
  }
  const metadata = new Map<string, GGUFValue>([
    ['general.architecture', architecture],
    [`${architecture}.block_count`, layers],
    [`${architecture}.context_length`, context],
    [`${architecture}.embedding_length`, hidden],
    [`${architecture}.feed_forward_length`, intermediate],
    [`${architecture}.attention.head_count`, numHeads],
    [`${architecture}.attention.head_count_kv`, numKvHeads],
    [`${architecture}.attention.layer_norm_rms_epsilon`, epsilon],
    [`${architecture}.rope.freq_base`, theta],
  ]);
  if (isQwen3) {
    metadata.set(`${architecture}.attention.key_length`, headDim);
    metadata.set(`${architecture}.attention.value_length`, headDim);
  }
  if (window > 0) metadata.set(`${architecture}.attention.sliding_window`, window);
  if (linearFactor !== 1) {
    metadata.set(`${architecture}.rope.scaling.type`, 'linear');
    metadata.set(`${architecture}.rope.scaling.factor`, linearFactor);
  }
  if (experts > 0) {
    metadata.set(`${architecture}.expert_count`, experts);
    metadata.set(`${architecture}.expert_used_count`, topK);
    metadata.set(`${architecture}.expert_feed_forward_length`, expertSize);
    if (architecture === 'qwen2moe') {
      metadata.set('qwen2moe.expert_shared_feed_forward_length', intermediate);
    }
    if (architecture === 'deepseek') {
      metadata.set('deepseek.leading_dense_block_count', denseLayers);
      metadata.set('deepseek.expert_shared_count', intermediate / expertSize);
      metadata.set('deepseek.expert_weights_scale', 1.5);
    }
  }
  const inputs = (options.separate ? [...tensors] : stacked(tensors, experts)).map(
    ([name, { shape, values }]) => ({
      name,
      type: 'f32',
      shape: [...shape],
      data: new Uint8Array(values.buffer),
    }),
  );
  const mode = architecture === 'llama' || architecture === 'deepseek' ? 'interleaved' : 'half';
  return {
    content: { metadata, tensors: inputs },
    reference: {
      tensors,
      numLayers: layers,
      numHeads,
      numKvHeads,
      headDim,
      epsilon,
      theta,
      mode,
      window,
      linearFactor,
      wholeNorm: architecture === 'olmoe',
      ...(experts > 0 && {
        moe: {
          numExperts: experts,
          topK,
          denseLayers,
          sigmoid: false,
          normalize: architecture === 'llama' || architecture === 'qwen3moe',
          scale: architecture === 'deepseek' ? 1.5 : 1,
        },
      }),
    },
  };
}

type Named = [string, { shape: readonly number[]; values: Float32Array }];

/** Experts of a layer in one tensor for each projection. */
function stacked(tensors: ReadonlyMap<string, Named[1]>, experts: number): Named[] {
  const list: Named[] = [];
  for (const [name, tensor] of tensors) {
    const [, front, e] = /^(.*ffn_(?:gate|up|down))\.(\d+)\.weight$/.exec(name) ?? [];
    if (front === undefined) list.push([name, tensor]);
    if (front === undefined || Number(e) > 0) continue;
    const values = new Float32Array(experts * tensor.values.length);
    for (let i = 0; i < experts; i++) {
      values.set(
        (tensors.get(`${front}.${i}.weight`) as Named[1]).values,
        i * tensor.values.length,
      );
    }
    list.push([`${front}_exps.weight`, { shape: [experts, ...tensor.shape], values }]);
  }
  return list;
}
