/** A small sound layer as each importer takes it, and means to make it unsound. */
import {
  type CheckpointTensor,
  memorySource,
  readSafetensors,
  type SafetensorsTensorInput,
  safetensorsBytes,
} from '../../lib/io/index.js';
import { awqTensors, compressedTensors, gptqTensors, randomLayer } from './checkpoint_layers.js';

export const options = { bits: 4, groupSize: 32 };
const layer = randomLayer({ ...options, rows: 32, cols: 64 }, 1);
export const tensorsOf = (inputs: SafetensorsTensorInput[]) =>
  readSafetensors(memorySource(safetensorsBytes({ tensors: inputs }))).tensors;
export const pick = (inputs: SafetensorsTensorInput[], name: string) =>
  tensorsOf(inputs).get(`l.${name}`) as CheckpointTensor;

export const gptqInputs = gptqTensors(layer, 'l', 2);
export const gptq = {
  qweight: pick(gptqInputs, 'qweight'),
  qzeros: pick(gptqInputs, 'qzeros'),
  scales: pick(gptqInputs, 'scales'),
  gIdx: pick(gptqInputs, 'g_idx'),
};
export const awqInputs = awqTensors(layer, 'l');
export const awq = {
  qweight: pick(awqInputs, 'qweight'),
  qzeros: pick(awqInputs, 'qzeros'),
  scales: pick(awqInputs, 'scales'),
};
export const packedInputs = compressedTensors(layer, 'l', { zeros: 'packed', gIdx: 'given' });
export const packed = {
  weightPacked: pick(packedInputs, 'weight_packed'),
  weightScale: pick(packedInputs, 'weight_scale'),
  weightShape: pick(packedInputs, 'weight_shape'),
  weightZeroPoint: pick(packedInputs, 'weight_zero_point'),
  weightGIdx: pick(packedInputs, 'weight_g_idx'),
};

/** The tensor with other facts. */
export const but = (tensor: CheckpointTensor, change: object): CheckpointTensor => ({
  name: tensor.name,
  type: tensor.type,
  shape: tensor.shape,
  data: () => tensor.data(),
  ...change,
});
export const int32 = (name: string, shape: number[], values: number[]): CheckpointTensor => ({
  name,
  type: 'i32',
  shape,
  data: () => new Uint8Array(Int32Array.from(values).buffer),
});
export const any = (value: unknown) => value as never;
