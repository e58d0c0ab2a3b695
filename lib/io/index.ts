/**
 * File formats and tokenizers: GGUF, safetensors, quantized checkpoints of GPTQ, AWQ and compressed-tensors, and the
 * tokenizers that GGUF files carry.
 *
 * @example
 * const file = readGGUF(memorySource(await readFile('model.gguf')));
 * const tokenizer = tokenizerFromGGUF(file);
 * console.log(file.metadata.get('general.name'), tokenizer.encode('Once upon a time'));
 *
 * @packageDocumentation
 */
export { type Checkpoint, importQuantized, quantizedLayers } from './checkpoint.js';
export { type AwqTensors, importAwq } from './checkpoint_awq.js';
export {
  type CompressedTensors,
  importCompressedTensors,
} from './checkpoint_compressed_tensors.js';
export { type GptqOptions, type GptqTensors, importGptq } from './checkpoint_gptq.js';
export type { GroupOptions, ImportedWeight } from './checkpoint_groups.js';
export type { CheckpointTensor } from './checkpoint_tensor.js';
export { type GGUFFile, type GGUFTensor, readGGUF } from './gguf.js';
export {
  GGML_TYPES,
  type GGMLType,
  type GGUFNumberType,
  type GGUFValue,
  type GGUFValueType,
  ggmlType,
} from './gguf_types.js';
export { type GGUFContent, type GGUFTensorInput, ggufBytes, writeGGUF } from './gguf_write.js';
export { mapFile } from './map_file.js';
export {
  loadPacked,
  type NamedWeights,
  type PackedFile,
  type PackedWeights,
  readPacked,
  savePacked,
} from './packed.js';
export {
  readSafetensors,
  SAFETENSORS_TYPES,
  type SafetensorsFile,
  type SafetensorsTensor,
} from './safetensors.js';
export {
  type SafetensorsContent,
  type SafetensorsTensorInput,
  safetensorsBytes,
  writeSafetensors,
} from './safetensors_write.js';
export { type ByteSource, memorySource } from './source.js';
export type { TensorData } from './tensor_data.js';
export {
  type DecodeOptions,
  type Decoder,
  type DecoderOptions,
  type EncodeOptions,
  Tokenizer,
  tokenizerFromGGUF,
} from './tokenizer.js';
