// Layers as checkpoints, their configurations, and what an import of them must give.
import { expect } from 'vitest';
import { dequantize } from '../../lib/index.js';
import {
  type ImportedWeight,
  memorySource,
  readSafetensors,
  type SafetensorsTensorInput,
  safetensorsBytes,
} from '../../lib/io/index.js';
import { type Layer, type LayerOptions, layerWeights } from './checkpoint_layers.js';

export const prefix = 'model.layers.0.mlp.up_proj';
export const opened = (tensors: SafetensorsTensorInput[]) =>
  readSafetensors(memorySource(safetensorsBytes({ tensors })));

export const gptqConfig = ({ bits, groupSize }: LayerOptions, version: 1 | 2 = 1) => ({
  quant_method: 'gptq',
  bits,
  group_size: groupSize,
  desc_act: true,
  sym: false,
  checkpoint_format: version === 1 ? 'gptq' : 'gptq_v2',
});
export const awqConfig = ({ groupSize }: LayerOptions) => ({
  quant_method: 'awq',
  bits: 4,
  group_size: groupSize,
  version: 'gemm',
  zero_point: true,
});
export const compressedConfig = ({ bits, groupSize }: LayerOptions) => ({
  quant_method: 'compressed-tensors',
  format: 'pack-quantized',
  ignore: ['lm_head'],
  config_groups: {
    group_0: {
      targets: ['Linear'],
      weights: {
        num_bits: bits,
        type: 'int',
        strategy: groupSize === -1 ? 'channel' : 'group',
        group_size: groupSize === -1 ? null : groupSize,
      },
    },
  },
});

/** Index of the first weight that differs from the layer's, -1 if none does. */
export function firstWrong(layer: Layer, { weight, columnOrder }: ImportedWeight): number {
  const { rows, cols } = layer;
  expect(weight.shape).toEqual([rows, cols]);
  if (columnOrder !== undefined) {
    expect(Array.from(columnOrder).sort((a, b) => a - b)).toEqual(layer.groupOf.map((_, k) => k));
  }
  const expected = layerWeights(layer);
  const values = dequantize(weight).data;
  return values.findIndex((value, i) => {
    const row = Math.floor(i / cols) * cols;
    const j = i - row;
    return value !== expected[row + (columnOrder?.[j] ?? j)];
  });
}
