// The mixture of a layer as GGUF files hold it.
import { type MoEExpert, MoEExperts } from '../../ops/moe/experts.js';
import type { QuantizedTensor } from '../../quantized_tensor.js';
import type { ModelConfig } from '../config.js';
import { Linear } from '../linear.js';
import type { LayerContext } from '../load_layer.js';
import type { ModelTensors } from '../model_tensors.js';
import type { MoEConfig } from './config.js';
import { ExpertCache } from './expert_cache.js';
import { MoELayer } from './moe_layer.js';

type Parts = { gate: QuantizedTensor; up: QuantizedTensor; down: QuantizedTensor };
const parts = ['gate', 'up', 'down'] as const;

/**
 * Layer `index`. Experts lie in one tensor for each projection, `blk.N.ffn_gate_exps.weight` [experts, width, hidden], or in
 * tensors of their own, `blk.N.ffn_gate.E.weight`, whose widths and types may differ (the form of Mixtral's first files, and
 * of experts that were pruned or merged).
 */
export async function buildMoE(
  tensors: ModelTensors,
  config: ModelConfig,
  index: number,
  { packed, activations, run, expertBytes }: LayerContext,
): Promise<MoELayer> {
  const moe = config.moe as MoEConfig;
  const { hiddenSize } = config;
  const prefix = `blk.${index}`;
  const numExperts = expertCount(tensors, prefix, moe);
  const routed = tensors.has(`${prefix}.ffn_gate_exps.weight`)
    ? await stacked(tensors, prefix, [moe.expertSize, hiddenSize], numExperts)
    : await separate(tensors, prefix, hiddenSize, numExperts);
  const experts: MoEExpert[] = [];
  for (const expert of [...routed, ...(await shared(tensors, prefix, hiddenSize, moe))]) {
    if (expertBytes !== undefined) {
      experts.push(expert);
      continue;
    }
    experts.push({
      gate: await packed(expert.gate),
      up: await packed(expert.up),
      down: await packed(expert.down),
    });
  }
  const router = await tensors.matrix(
    `${prefix}.ffn_gate_inp.weight`,
    [numExperts, hiddenSize],
    'expert_count, embedding_length',
  );
  const bias = tensors.optionalVector(`${prefix}.exp_probs_b.bias`, numExperts, 'expert_count');
  const sharedGate = sharedRouter(tensors, prefix, hiddenSize);
  return new MoELayer({
    router: new Linear(router, { activations: 'f32', ...run }),
    experts:
      expertBytes === undefined
        ? new MoEExperts(experts)
        : new ExpertCache(experts, { bytes: expertBytes, ...run }),
    route: {
      ...moe.route,
      topK: Math.min(moe.route.topK, numExperts),
      ...(bias === undefined ? {} : { bias }),
    },
    numShared: experts.length - numExperts,
    ...(sharedGate && { sharedGate: new Linear(sharedGate, { activations: 'f32', ...run }) }),
    activations,
    ...run,
  });
}

/** Experts of this layer: layers whose experts were pruned have a smaller router. */
function expertCount(tensors: ModelTensors, prefix: string, moe: MoEConfig): number {
  const [rows = 0] = tensors.shapeOf(`${prefix}.ffn_gate_inp.weight`) ?? [];
  return rows >= 1 && rows < moe.numExperts ? rows : moe.numExperts;
}

async function stacked(
  tensors: ModelTensors,
  prefix: string,
  [width, hidden]: [number, number],
  count: number,
): Promise<Parts[]> {
  const stack = (part: string, rows: number, cols: number) =>
    tensors.stack(
      `${prefix}.ffn_${part}_exps.weight`,
      [count, rows, cols],
      'expert_count, expert_feed_forward_length, embedding_length',
    );
  const gate = await stack('gate', width, hidden);
  const up = await stack('up', width, hidden);
  const down = await stack('down', hidden, width);
  return gate.map((own, e) => ({
    gate: own,
    up: up[e] as QuantizedTensor,
    down: down[e] as QuantizedTensor,
  }));
}

async function separate(
  tensors: ModelTensors,
  prefix: string,
  hidden: number,
  count: number,
): Promise<Parts[]> {
  const experts: Parts[] = [];
  for (let e = 0; e < count; e++) {
    const [width = 0] = tensors.shapeOf(`${prefix}.ffn_up.${e}.weight`) ?? [];
    const own: Partial<Parts> = {};
    for (const part of parts) {
      own[part] = await tensors.matrix(
        `${prefix}.ffn_${part}.${e}.weight`,
        part === 'down' ? [hidden, width] : [width, hidden],
        `width of expert ${e}, embedding_length`,
      );
    }
    experts.push(own as Parts);
  }
  return experts;
}

async function shared(
  tensors: ModelTensors,
  prefix: string,
  hidden: number,
  { sharedSize }: MoEConfig,
): Promise<Parts[]> {
  if (sharedSize === 0) return [];
  const own: Partial<Parts> = {};
  for (const part of parts) {
    own[part] = await tensors.matrix(
      `${prefix}.ffn_${part}_shexp.weight`,
      part === 'down' ? [hidden, sharedSize] : [sharedSize, hidden],
      'expert_shared_feed_forward_length, embedding_length',
    );
  }
  return [own as Parts];
}

/** A vector in the files of llama.cpp. */
function sharedRouter(tensors: ModelTensors, prefix: string, hidden: number) {
  const vector = tensors.optionalVector(
    `${prefix}.ffn_gate_inp_shexp.weight`,
    hidden,
    'embedding_length',
  );
  return vector && tensors.rowOf(vector);
}
