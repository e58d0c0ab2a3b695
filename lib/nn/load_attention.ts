// The attention of a layer as GGUF files hold it.
import { dequantize } from '../ops/quantize/dequantize.js';
import { QuantizedTensor, takesCodebook } from '../quantized_tensor.js';
import { Attention } from './attention.js';
import {
  type FoldedOrder,
  movedFrequencies,
  rowsInOrder,
  vectorInOrder,
} from './calibration/fold_order.js';
import type { ModelConfig } from './config.js';
import { LatentProjection } from './latent_projection.js';
import { Linear } from './linear.js';
import type { LayerContext } from './load_layer.js';
import type { ModelTensors } from './model_tensors.js';
import { requantize, rowsFit } from './requantize.js';
import { RMSNorm } from './rms_norm.js';

/** Makes a layer of matrix `blk.N.<name>.weight` and its bias. */
export type LinearLoader = (
  name: string,
  rows: number,
  cols: number,
  meaning: string,
  orders?: { rowOrder?: Int32Array; columnOrder?: Int32Array },
) => Promise<Linear>;

const hidden = 'embedding_length';

/** Of layer `index`; `moved`: the order that its channels get. */
export async function buildAttention(
  tensors: ModelTensors,
  config: ModelConfig,
  index: number,
  { order, freqFactors, run }: LayerContext,
  linear: LinearLoader,
  moved: FoldedOrder | undefined,
): Promise<Attention> {
  const { hiddenSize, numHeads, numKvHeads, headDim, valueDim } = config;
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
  return new Attention({
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
}

/** Multi-head latent attention (deepseek2), keys and values made of the latent vector for each head. */
export async function buildLatentAttention(
  tensors: ModelTensors,
  config: ModelConfig,
  index: number,
  { freqFactors, run, activations, packed }: LayerContext,
  linear: LinearLoader,
): Promise<Attention> {
  const { hiddenSize, numHeads, headDim, valueDim, rope } = config;
  const { rank, queryRank } = config.latent as NonNullable<ModelConfig['latent']>;
  const { rotaryDim } = rope;
  const vector = (name: string, size: number, meaning: string): RMSNorm =>
    new RMSNorm(tensors.vector(`blk.${index}.${name}.weight`, size, meaning), {
      epsilon: config.epsilon,
      ...run,
    });
  // Rotary channels stand last in each head of the file, and first here.
  const rowOrder = Int32Array.from({ length: numHeads * headDim }, (_, row) => {
    const [head, channel] = [Math.floor(row / headDim), row % headDim];
    const from = channel < rotaryDim ? headDim - rotaryDim + channel : channel - rotaryDim;
    return head * headDim + from;
  });
  const layer = async (weight: QuantizedTensor) =>
    new Linear(await packed(weight), { activations, ...run });
  const matrices = await latentMatrices(tensors, config, index);
  const [key, value] = [await layer(matrices.key), await layer(matrices.value)];
  const queryName = queryRank > 0 ? 'attn_q_b' : 'attn_q';
  return new Attention({
    query: await linear(
      queryName,
      numHeads * headDim,
      queryRank > 0 ? queryRank : hiddenSize,
      `heads * key_length, ${queryRank > 0 ? 'attention.q_lora_rank' : hidden}`,
      { rowOrder },
    ),
    key,
    value,
    output: await linear(
      'attn_output',
      hiddenSize,
      numHeads * valueDim,
      `${hidden}, heads * value_length`,
    ),
    latent: new LatentProjection({
      down: await linear(
        'attn_kv_a_mqa',
        rank + rotaryDim,
        hiddenSize,
        `attention.kv_lora_rank + rope.dimension_count, ${hidden}`,
      ),
      norm: vector('attn_kv_a_norm', rank, 'attention.kv_lora_rank'),
      key,
      value,
      ...(queryRank > 0 && {
        queryDown: await linear(
          'attn_q_a',
          queryRank,
          hiddenSize,
          `attention.q_lora_rank, ${hidden}`,
        ),
        queryNorm: vector('attn_q_a_norm', queryRank, 'attention.q_lora_rank'),
      }),
    }),
    ...(config.attentionScale === undefined ? {} : { scale: config.attentionScale }),
    numHeads,
    numKvHeads: numHeads,
    rope,
    freqFactors,
    ...run,
  });
}

/** rank -> each head's own key channels; rank -> each head's value. */
async function latentMatrices(
  tensors: ModelTensors,
  { numHeads, headDim, valueDim, rope, latent }: ModelConfig,
  index: number,
): Promise<{ key: QuantizedTensor; value: QuantizedTensor }> {
  const rank = latent?.rank as number;
  const own = headDim - rope.rotaryDim;
  const prefix = `blk.${index}.attn`;
  if (tensors.has(`${prefix}_kv_b.weight`)) {
    const both = await tensors.matrix(
      `${prefix}_kv_b.weight`,
      [numHeads * (own + valueDim), rank],
      'heads * (key_length - rope.dimension_count + value_length), attention.kv_lora_rank',
    );
    const rows = (first: number, count: number) =>
      Int32Array.from(
        { length: numHeads * count },
        (_, row) => Math.floor(row / count) * (own + valueDim) + first + (row % count),
      );
    return {
      key: rowsInOrder(both, rows(0, own)),
      value: rowsInOrder(both, rows(own, valueDim)),
    };
  }
  const keys = await tensors.stack(
    `${prefix}_k_b.weight`,
    [numHeads, rank, own],
    'heads, attention.kv_lora_rank, key_length - rope.dimension_count',
  );
  const values = await tensors.stack(
    `${prefix}_v_b.weight`,
    [numHeads, valueDim, rank],
    'heads, value_length, attention.kv_lora_rank',
  );
  return { key: await transposed(keys), value: joined(values) };
}

/** Matrices one below the other. */
function joined(matrices: QuantizedTensor[]): QuantizedTensor {
  const [{ format, rows, cols, codebook, tensorScale }] = matrices as [QuantizedTensor];
  const result = QuantizedTensor.empty(format, [matrices.length * rows, cols], {
    tensorScale,
    ...(codebook === undefined ? {} : { codebook }),
  });
  for (const [i, { bytes }] of matrices.entries()) result.bytes.set(bytes, i * bytes.length);
  return result;
}

/** The transposes one below the other, in the same format where their rows fit its blocks. */
async function transposed(matrices: QuantizedTensor[]): Promise<QuantizedTensor> {
  const [{ format, rows, cols }] = matrices as [QuantizedTensor];
  const values = new Float32Array(matrices.length * rows * cols);
  for (const [i, matrix] of matrices.entries()) {
    const from = dequantize(matrix).data;
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) {
        values[(i * cols + c) * rows + r] = from[r * cols + c] as number;
      }
    }
  }
  const result = new QuantizedTensor('f32', values, [matrices.length * cols, rows]);
  const keeps = format === 'f32' || takesCodebook(format) || !rowsFit(format, rows);
  return keeps ? result : requantize(result, format);
}
