import { argumentError } from '../errors.js';
import type { QuantizedTensor } from '../quantized_tensor.js';
import type { RunOptions } from '../run.js';
import type { ChannelOrder } from './calibration/channel_order.js';
import {
  columnsInOrder,
  foldOrder,
  inverseOrder,
  rowsInOrder,
  vectorInOrder,
} from './calibration/fold_order.js';
import type { ModelConfig } from './config.js';
import { DecoderLayer } from './decoder_layer.js';
import { type Activations, Linear, type LinearOptions } from './linear.js';
import { buildAttention, buildLatentAttention, type LinearLoader } from './load_attention.js';
import { LoraLinear, type LoraMixture } from './lora_linear.js';
import { MLP } from './mlp.js';
import type { ModelTensors } from './model_tensors.js';
import { buildMoE } from './moe/load_experts.js';
import type { RMSNorm } from './rms_norm.js';

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
  /** Experts of low rank for the product of a name, if it has some. */
  lora: (name: string) => LoraMixture | undefined;
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
  const { norm, activations, run, packed, order, lora } = context;
  const { hiddenSize, intermediateSize } = config;
  if (order !== undefined && config.latent !== undefined) {
    throw argumentError('BL_UNSUPPORTED', `load: channelOrders with ${config.architecture}`);
  }
  const moved = order && foldOrder(index, order, config);
  const linear: LinearLoader = async (name, rows, cols, meaning, orders = {}) => {
    const { rowOrder, columnOrder } = orders;
    const full = `blk.${index}.${name}`;
    const stored = await tensors.matrix(`${full}.weight`, [rows, cols], meaning);
    const columns = columnOrder && columnsInOrder(stored, columnOrder);
    const ordered = rowOrder === undefined ? (columns ?? stored) : rowsInOrder(stored, rowOrder);
    const weight = await packed(ordered);
    const bias = tensors.optionalVector(`${full}.bias`, rows, meaning.split(',')[0] as string);
    const options: LinearOptions = {
      bias: vectorInOrder(bias, rowOrder),
      activations,
      ...run,
      ...(columnOrder === undefined || columns !== undefined
        ? {}
        : { columnOrder: inverseOrder(columnOrder) }),
    };
    const mixture = lora(full);
    if (mixture === undefined) return new Linear(weight, options);
    if (rowOrder !== undefined || columnOrder !== undefined) {
      throw argumentError(
        'BL_UNSUPPORTED',
        `load: lora of ${full}, whose channels are in another order`,
      );
    }
    return new LoraLinear(weight, mixture, options);
  };
  const hidden = 'embedding_length';
  const attention =
    config.latent === undefined
      ? await buildAttention(tensors, config, index, context, linear, moved)
      : await buildLatentAttention(tensors, config, index, context, linear);
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
