import type { QuantizedTensor } from '../quantized_tensor.js';
import type { RunOptions } from '../run.js';
import { Attention } from './attention.js';
import type { ChannelOrder } from './calibration/channel_order.js';
import {
  columnsInOrder,
  foldOrder,
  inverseOrder,
  movedFrequencies,
  rowsInOrder,
  vectorInOrder,
} from './calibration/fold_order.js';
import type { ModelConfig } from './config.js';
import { DecoderLayer } from './decoder_layer.js';
import { type Activations, Linear } from './linear.js';
import { MLP } from './mlp.js';
import type { ModelTensors } from './model_tensors.js';
import { buildMoE } from './moe/load_experts.js';
import { RMSNorm } from './rms_norm.js';

/** Makes of a matrix what kernels read. */
export type Packer = (weights: QuantizedTensor) => Promise<QuantizedTensor>;

/** What all layers are built with. */
export interface LayerContext {
  packed: Packer;
  norm: (name: string) => RMSNorm;
  activations: Activations;
  run: RunOptions;
  freqFactors: ReturnType<ModelTensors['optionalVector']>;
  order: ChannelOrder | undefined;
  /** Memory for the experts of a layer, if they are to stay in the file otherwise. */
  expertBytes: number | undefined;
}

/** Layer `index` of the model in `tensors`. */
export async function buildLayer(
  tensors: ModelTensors,
  config: ModelConfig,
  index: number,
  context: LayerContext,
): Promise<DecoderLayer> {
  const { norm, activations, run, freqFactors, packed, order } = context;
  const { hiddenSize, intermediateSize, numHeads, numKvHeads, headDim, valueDim } = config;
  const moved = order && foldOrder(index, order, config);
  const linear = async (
    name: string,
    rows: number,
    cols: number,
    meaning: string,
    { rowOrder, columnOrder }: { rowOrder?: Int32Array; columnOrder?: Int32Array } = {},
  ): Promise<Linear> => {
    const full = `blk.${index}.${name}`;
    const stored = await tensors.matrix(`${full}.weight`, [rows, cols], meaning);
    const columns = columnOrder && columnsInOrder(stored, columnOrder);
    const ordered = rowOrder === undefined ? (columns ?? stored) : rowsInOrder(stored, rowOrder);
    const weight = await packed(ordered);
    const bias = tensors.optionalVector(`${full}.bias`, rows, meaning.split(',')[0] as string);
    return new Linear(weight, {
      bias: vectorInOrder(bias, rowOrder),
      activations,
      ...run,
      ...(columnOrder === undefined || columns !== undefined
        ? {}
        : { columnOrder: inverseOrder(columnOrder) }),
    });
  };
  // Of each head; in olmoe of all heads together.
  const headNorm = (name: string, heads: number, whole?: Int32Array): RMSNorm | undefined => {
    const full = `blk.${index}.${name}.weight`;
    const isWhole = config.architecture === 'olmoe';
    const weight = isWhole
      ? tensors.optionalVector(full, heads * headDim, 'heads * key_length')
      : tensors.optionalVector(full, headDim, 'attention.key_length');
    const ordered = weight && vectorInOrder(weight, isWhole ? whole : moved?.head);
    return ordered && new RMSNorm(ordered, { epsilon: config.epsilon, ...run });
  };
  const hidden = 'embedding_length';
  const attention = new Attention({
    query: await linear('attn_q', numHeads * headDim, hiddenSize, `heads * key_length, ${hidden}`, {
      ...(moved && { rowOrder: moved.query }),
    }),
    key: await linear(
      'attn_k',
      numKvHeads * headDim,
      hiddenSize,
      `kv heads * key_length, ${hidden}`,
      { ...(moved && { rowOrder: moved.key }) },
    ),
    value: await linear(
      'attn_v',
      numKvHeads * valueDim,
      hiddenSize,
      `kv heads * value_length, ${hidden}`,
      { ...(moved && { rowOrder: moved.value }) },
    ),
    output: await linear(
      'attn_output',
      hiddenSize,
      numHeads * valueDim,
      `${hidden}, heads * value_length`,
      { ...(moved && { columnOrder: moved.output }) },
    ),
    queryNorm: headNorm('attn_q_norm', numHeads, moved?.query),
    keyNorm: headNorm('attn_k_norm', numKvHeads, moved?.key),
    numHeads,
    numKvHeads,
    rope: config.rope,
    freqFactors:
      order === undefined ? freqFactors : movedFrequencies(order, config.rope, freqFactors),
    window: config.window,
    ...run,
  });
  const isMixture = config.moe !== undefined && index >= config.moe.denseLayers;
  const mlp = isMixture
    ? await buildMoE(tensors, config, index, context)
    : new MLP(
        await linear('ffn_gate', intermediateSize, hiddenSize, `feed_forward_length, ${hidden}`),
        await linear('ffn_up', intermediateSize, hiddenSize, `feed_forward_length, ${hidden}`),
        await linear('ffn_down', hiddenSize, intermediateSize, `${hidden}, feed_forward_length`),
        run,
      );
  return new DecoderLayer(
    norm(`blk.${index}.attn_norm`),
    attention,
    norm(`blk.${index}.ffn_norm`),
    mlp,
  );
}
