// The mixture of a layer as GGUF files hold it.
import { type MoEExpert, MoEExperts } from '../../ops/moe/experts.js';
import type { QuantizedTensor } from '../../quantized_tensor.js';
import type { ModelConfig } from '../config.js';
import { Linear } from '../linear.js';
import type { LayerContext, Packer } from '../load_layer.js';
import { invalidModel } from '../model_error.js';
import type { ModelTensors } from '../model_tensors.js';
import type { MoEConfig } from './config.js';
import { ExpertCache } from './expert_cache.js';
import { type ExpertPart, expertTensor, usedExperts } from './expert_tensors.js';
import { MoELayer } from './moe_layer.js';

/** An expert, and the neurons it has besides. */
type Parts = MoEExpert & { kept?: MoEExpert };
const parts = ['gate', 'up', 'down'] as const;

/**
 * Layer `index`. Experts lie in one tensor for each projection, `blk.N.ffn_gate_exps.weight` [experts, width, hidden], or in
 * tensors of their own, `blk.N.ffn_gate.E.weight`, whose widths and types may differ (the form of Mixtral's first files, and
 * of experts that were pruned or merged; with `ffn_reduce`, `ffn_expand` and `ffn_gate_kept` of those that were decomposed).
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
  const topK = usedExperts(tensors.file, index, numExperts, moe.route.topK);
  const { numGroups = 1, topGroups = numGroups } = moe.route;
  if (numExperts % numGroups !== 0 || topGroups * (numExperts / numGroups) < topK) {
    throw invalidModel(
      `${prefix} has ${numExperts} experts, expected a multiple of ${numGroups} (= expert_group_count), ` +
        `${topGroups} of whose groups have room for ${topK}`,
    );
  }
  const routed = tensors.has(`${prefix}.ffn_gate_exps.weight`)
    ? await stacked(tensors, index, [moe.expertSize, hiddenSize], numExperts)
    : await separate(tensors, index, hiddenSize, numExperts);
  const experts: MoEExpert[] = [];
  const kept: MoEExpert[] = [];
  for (const expert of [...routed, ...(await shared(tensors, prefix, hiddenSize, moe))]) {
    const { kept: neurons, ...own } = expert;
    experts.push(expertBytes === undefined ? await packedExpert(own, packed) : own);
    if (neurons !== undefined) kept.push(await packedExpert(neurons, packed));
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
    ...(kept.length === 0 ? {} : { kept: new MoEExperts(kept) }),
    route: {
      ...moe.route,
      topK,
      ...(bias === undefined ? {} : { bias }),
    },
    numShared: experts.length - numExperts,
    ...(sharedGate && { sharedGate: new Linear(sharedGate, { activations: 'f32', ...run }) }),
    activations,
    ...run,
  });
}

async function packedExpert(expert: MoEExpert, packed: Packer): Promise<MoEExpert> {
  const { gate, up, down, reduce, expand } = expert;
  return {
    ...(gate === undefined ? {} : { gate: await packed(gate) }),
    up: await packed(up),
    down: await packed(down),
    ...(reduce === undefined ? {} : { reduce: await packed(reduce) }),
    ...(expand === undefined ? {} : { expand: await packed(expand) }),
  };
}

/** Experts of this layer: layers whose experts were pruned have a smaller router. */
function expertCount(tensors: ModelTensors, prefix: string, moe: MoEConfig): number {
  const [rows = 0] = tensors.shapeOf(`${prefix}.ffn_gate_inp.weight`) ?? [];
  return rows >= 1 && rows < moe.numExperts ? rows : moe.numExperts;
}

async function stacked(
  tensors: ModelTensors,
  index: number,
  [width, hidden]: [number, number],
  count: number,
): Promise<Parts[]> {
  const stack = (part: ExpertPart, rows: number, cols: number) =>
    tensors.stack(
      expertTensor(index, part),
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
  index: number,
  hidden: number,
  count: number,
): Promise<Parts[]> {
  const experts: Parts[] = [];
  for (let e = 0; e < count; e++) {
    const shape = (part: ExpertPart) => tensors.shapeOf(expertTensor(index, part, e));
    const matrix = (part: ExpertPart, rows: number, cols: number, meaning: string) =>
      tensors.matrix(expertTensor(index, part, e), [rows, cols], meaning);
    const [width = 0] = shape('up') ?? [];
    const [inner = hidden] = shape('reduce') ?? [];
    const [, outer = hidden] = shape('expand') ?? [];
    const meaning = `width of expert ${e}, embedding_length`;
    const own: Parts = {
      gate: await matrix('gate', width, inner, meaning),
      up: await matrix('up', width, inner, meaning),
      down: await matrix('down', outer, width, meaning),
    };
    const rank = `rank of expert ${e}, embedding_length`;
    if (shape('reduce') !== undefined) own.reduce = await matrix('reduce', inner, hidden, rank);
    if (shape('expand') !== undefined) own.expand = await matrix('expand', hidden, outer, rank);
    const [kept = 0] = shape('up_kept') ?? [];
    if (kept > 0) {
      own.kept = {
        gate: await matrix('gate_kept', kept, hidden, meaning),
        up: await matrix('up_kept', kept, hidden, meaning),
        down: await matrix('down_kept', hidden, kept, meaning),
      };
    }
    experts.push(own);
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
