/**
 * Typed tensors and low-bit inference operators over native kernels.
 *
 * @packageDocumentation
 */
export {
  Device,
  type DeviceInfo,
  DeviceMemory,
  type DeviceName,
  devices,
  Graph,
  Stream,
  whyNoDevice,
} from './device.js';
export { BitloomError, type BitloomErrorCode } from './errors.js';
export {
  type DType,
  type Format,
  type FormatInfo,
  formats,
  type Isa,
  type KVFormat,
  kvFormats,
} from './generated.js';
export { type Machine, machine, setIsa, setThreads } from './machine.js';
export { type MixedSegment, MixedTensor } from './mixed_tensor.js';
export { attention, attentionAsync } from './ops/attention/attention.js';
export {
  type DecodeAttentionOptions,
  decodeAttention,
  decodeAttentionAsync,
} from './ops/attention/decode_attention.js';
export {
  type AttentionState,
  type MergeStatesOptions,
  mergeStates,
  mergeStatesAsync,
} from './ops/attention/merge_states.js';
export type {
  AttentionCompute,
  AttentionOptions,
  AttentionRope,
  AttentionScores,
  BlockMask,
  KVSegment,
  PagesView,
  RaggedOptions,
} from './ops/attention/options.js';
export {
  type BlockSparseOptions,
  dds,
  ddsAsync,
  dsd,
  dsdAsync,
  sdd,
  sddAsync,
} from './ops/block_sparse/block_sparse.js';
export {
  type GroupedMatmulOptions,
  groupedMatmul,
  groupedMatmulAsync,
  groupedOuter,
  groupedOuterAsync,
} from './ops/block_sparse/grouped_matmul.js';
export {
  type MoEPermuteOptions,
  moePermute,
  moePermuteAsync,
  type PermutedRows,
} from './ops/block_sparse/moe_permute.js';
export {
  type MoEUnpermuteOptions,
  moeUnpermute,
  moeUnpermuteAsync,
} from './ops/block_sparse/moe_unpermute.js';
export type { ProductCompute, ProductOptions } from './ops/block_sparse/options.js';
export { type BlockSparseMatrix, type Topology, topology } from './ops/block_sparse/topology.js';
export { type AddOptions, add, addAsync } from './ops/elementwise/add.js';
export {
  type GeluApproximation,
  type GeluOptions,
  gelu,
  geluAsync,
} from './ops/elementwise/gelu.js';
export { type MulOptions, mul, mulAsync } from './ops/elementwise/mul.js';
export { type SiluOptions, silu, siluAsync } from './ops/elementwise/silu.js';
export { type SwigluOptions, swiglu, swigluAsync } from './ops/elementwise/swiglu.js';
export { type EmbeddingOptions, embedding, embeddingAsync } from './ops/embedding/embedding.js';
export { type KVAppendOptions, kvAppend, kvAppendAsync } from './ops/kv/kv_append.js';
export {
  type KVGatherOptions,
  type KVTokens,
  kvGather,
  kvGatherAsync,
} from './ops/kv/kv_gather.js';
export { KVPages, type KVPagesOptions, kvPageBytes } from './ops/kv/kv_pages.js';
export {
  type NearestKeys,
  type NearestKeysOptions,
  nearestKeys,
  nearestKeysAsync,
} from './ops/kv/nearest_keys.js';
export { type UnsmoothedLseOptions, unsmoothedLse } from './ops/kv/unsmoothed_lse.js';
export { type KVRows, type KVWriteOptions, kvWrite, kvWriteAsync } from './ops/kv/kv_write.js';
export {
  type LinearAttentionOptions,
  type LinearAttentionResult,
  type LinearRule,
  linearAttention,
  linearAttentionAsync,
} from './ops/linear_attention/linear_attention.js';
export type { SumOptions } from './ops/matmul/accumulate.js';
export { BitStack, type BitStackBlock } from './ops/matmul/bit_stack.js';
export {
  matmul,
  matmulAsync,
  matmulKernel,
  matmulWorkspaceBytes,
} from './ops/matmul/matmul.js';
export {
  mixed,
  mixedAsync,
  type QuantizeMixedOptions,
  quantizeMixed,
} from './ops/matmul/mixed.js';
export { type OneBitWeights, oneBit, oneBitAsync } from './ops/matmul/one_bit.js';
export type {
  Activation,
  Adapters,
  Algorithm,
  Compute,
  LowRank,
  MatmulOptions,
  Outliers,
  OutputDType,
  Tables,
} from './ops/matmul/options.js';
export {
  type PrepareActivationsOptions,
  prepareActivations,
  prepareActivationsAsync,
} from './ops/matmul/prepare_activations.js';
export { PreparedActivations } from './ops/matmul/prepared_activations.js';
export { type SignDelta, signDelta, signDeltaAsync } from './ops/matmul/sign_delta.js';
export {
  matmulTuning,
  saveTuning,
  setMatmulTuning,
  type TuneOptions,
  tuneMatmul,
} from './ops/matmul/tune.js';
export {
  expertCapacity,
  type LimitCapacityOptions,
  type LimitedRoutes,
  limitCapacity,
} from './ops/moe/capacity.js';
export { type ExpertChoiceOptions, expertChoice } from './ops/moe/expert_choice.js';
export { type MoEExpert, MoEExperts } from './ops/moe/experts.js';
export {
  type LoraExperts,
  type LoraMixtureOptions,
  loraMixture,
  loraMixtureAsync,
} from './ops/moe/lora_mixture.js';
export {
  type MoEActivation,
  type MoEForwardOptions,
  moeForward,
  moeForwardAsync,
  moeForwardWorkspaceBytes,
} from './ops/moe/moe_forward.js';
export {
  type MoERouteOptions,
  type MoERoutes,
  type MoEScoring,
  moeRoute,
  moeRouteAsync,
} from './ops/moe/moe_route.js';
export {
  type NestedCapacitiesOptions,
  type NestedRouteOptions,
  nestedCapacities,
  nestedRoute,
  unitWeights,
} from './ops/moe/nested_route.js';
export { type NoisyRouteOptions, noisyRoute } from './ops/moe/noisy_route.js';
export {
  type ExpertAccess,
  type PreGatedRoutes,
  type PreGateOptions,
  preGate,
} from './ops/moe/pre_gate.js';
export { type RectifyOptions, rectifyRoutes } from './ops/moe/rectify_routes.js';
export {
  RouterLoad,
  type RouterLoadState,
  type RouterStatistics,
  routerZLoss,
} from './ops/moe/router_losses.js';
export {
  averageKeyRouter,
  type HyperRouterOptions,
  hyperRouterWeights,
} from './ops/moe/router_weights.js';
export { type SwitchAndMixtureOptions, switchAndMixture } from './ops/moe/switch_and_mixture.js';
export {
  type SwitchAndMixtureLosses,
  type SwitchAndMixtureLossOptions,
  switchAndMixtureLosses,
} from './ops/moe/switch_and_mixture_losses.js';
export { type LayerNormOptions, layerNorm, layerNormAsync } from './ops/norm/layer_norm.js';
export { type RmsNormOptions, rmsNorm, rmsNormAsync } from './ops/norm/rms_norm.js';
export {
  type DequantizeOptions,
  dequantize,
  dequantizeAsync,
} from './ops/quantize/dequantize.js';
export { type PackOptions, pack, packAsync } from './ops/quantize/pack.js';
export {
  type PackWeightsOptions,
  packWeights,
  packWeightsAsync,
} from './ops/quantize/pack_weights.js';
export {
  type QuantizeMethod,
  type QuantizeOptions,
  quantize,
  quantizeAsync,
} from './ops/quantize/quantize.js';
export {
  type RopeOptions,
  rope,
  ropeAsync,
} from './ops/rope/rope.js';
export type { RopeMode, RopeScaling, RopeTurns } from './ops/rope/values.js';
export {
  type Sampled,
  type SampleOptions,
  sample,
  sampleAsync,
} from './ops/sampling/sample.js';
export { type SoftmaxOptions, softmax, softmaxAsync } from './ops/softmax/softmax.js';
export {
  type Layout,
  QuantizedTensor,
  type QuantizedTensorOptions,
  weightsBytes,
} from './quantized_tensor.js';
export { RecordedSequence } from './recorded_sequence.js';
export { type AsyncOptions, type RunOptions, sequence } from './run.js';
export type { MatmulTuning } from './saved_tuning.js';
export {
  type DataTypes,
  type DTypeName,
  type FloatDType,
  Tensor,
  type TensorLayout,
  type TensorSource,
} from './tensor.js';
