/**
 * Language models of the llama family: layers, loading, generation.
 *
 * @packageDocumentation
 */
export {
  Attention,
  type AttentionOptions,
  type AttentionScratch,
  type AttentionStep,
} from './attention.js';
export { type CacheSamples, cacheSamples } from './calibration/cache_samples.js';
export { type ChannelOrder, fitChannelOrder } from './calibration/channel_order.js';
export { fitKeyMean } from './calibration/key_mean.js';
export type { Architecture, ModelConfig } from './config.js';
export { Decoder, type DecoderOptions, type DecoderParts, type ForwardOptions } from './decoder.js';
export type {
  CacheStep,
  DecoderCache,
  MixingLayer,
  PagedLayer,
  UnrotatedStep,
} from './decoder_cache.js';
export { DecoderLayer } from './decoder_layer.js';
export type {
  FinishReason,
  GenerateOptions,
  Generation,
  GenerationStats,
} from './generation.js';
export { KVCache, type KVCacheOptions, type LayerCache } from './kv_cache.js';
export { type Activations, Linear, type LinearOptions } from './linear.js';
export { type LoadOptions, load, type Progress } from './load.js';
export { LoraLinear, type LoraMixture } from './lora_linear.js';
export {
  fitLowRank,
  type LowRankFactors,
  type LowRankOptions,
  type LowRankPair,
} from './low_rank/fit_low_rank.js';
export { type LowRankCacheOptions, LowRankDecoderCache } from './low_rank/low_rank_cache.js';
export { MLP, type MLPScratch } from './mlp.js';
export type { ModelSource } from './model_source.js';
export { type CompressModelOptions, compressModel } from './moe/compression/compress_model.js';
export {
  type EvolveCandidate,
  type EvolveOptions,
  type EvolveState,
  evolveExperts,
} from './moe/compression/evolve.js';
export { applyExpertPlan, type ExpertPlan } from './moe/compression/expert_plan.js';
export {
  expertCounts,
  expertInputs,
  expertLayers,
  withExperts,
} from './moe/compression/experts_of.js';
export type { DenseExpert, ExpertLayer, ExpertMatrices } from './moe/compression/layer.js';
export {
  type LowRankExperts,
  type LowRankExpertsOptions,
  lowRankExperts,
} from './moe/compression/low_rank.js';
export {
  type MergedExperts,
  type MergeExpertsOptions,
  mergeExperts,
} from './moe/compression/merge.js';
export { pruneByUsage } from './moe/compression/prune.js';
export type { MoEConfig } from './moe/config.js';
export type { ExpertActivation } from './moe/expert_activation.js';
export { ExpertCache, type ExpertCacheOptions, type ExpertCacheStats } from './moe/expert_cache.js';
export type { ExpertProducts, ExpertRun } from './moe/expert_products.js';
export {
  type MoELayerGradients,
  type MoELayerState,
  type MoELayerWeights,
  type MoETrainingOptions,
  moeLayerBackward,
  moeLayerForward,
} from './moe/moe_gradients.js';
export { MoELayer, type MoELayerOptions, type MoEScratch } from './moe/moe_layer.js';
export { type RouteRule, type RouterLosses, routerLosses } from './moe/router_gradient.js';
export {
  BlockPool,
  type BlockPoolOptions,
  type BlockPoolStats,
  type ChunkMatch,
  type Shortage,
} from './paged/block_pool.js';
export type { Appended, PageCopy, PageReposition, Removed } from './paged/changes.js';
export type { KVShortage, PagedKVCacheOptions, RopeSetting } from './paged/kv_options.js';
export type { PagedKVBatch } from './paged/paged_kv_batch.js';
export { PagedKVCache, type PagedKVCacheStats } from './paged/paged_kv_cache.js';
export type { KVRemovalOptions, PagedKVSequence } from './paged/paged_kv_sequence.js';
export type { PagedSequence } from './paged/paged_sequence.js';
export type { RemovalOptions } from './paged/removal.js';
export type { CacheFormat, PagedCacheOptions } from './paged_cache_options.js';
export { PagedDecoderCache } from './paged_decoder_cache.js';
export { type Perplexity, type PerplexityOptions, perplexity } from './perplexity.js';
export {
  type AdoreOptions,
  adore,
  type CachePolicy,
  type CakeOptions,
  type ChunkKVOptions,
  type CitrusOptions,
  type CompressKVOptions,
  cake,
  chunkKV,
  citrus,
  clusterEpisodes,
  compressKV,
  type D2OOptions,
  d2o,
  type EMSOptions,
  type EpiCacheOptions,
  type Episodes,
  EpisodicCache,
  type EpisodicCacheOptions,
  elasticCache,
  ems,
  epiCache,
  type FixedPlaceOptions,
  type GuiKVOptions,
  guiKV,
  h2o,
  type InfiniRetriOptions,
  infiniRetri,
  type KeySimilarityOptions,
  keySimilarity,
  type LayerContent,
  type LayerView,
  type LookMOptions,
  lookM,
  meanEmbedding,
  type Observation,
  type ObservedSum,
  type PolicyOptions,
  type PositionRange,
  type ProbeOptions,
  type PyramidKVOptions,
  prefixKV,
  pyramidKV,
  type RetrievalHeadsOptions,
  retrievalHeads,
  type ScoreStep,
  type SnapKVOptions,
  type StreamingLLMOptions,
  scissorhands,
  snapKV,
  streamingLLM,
  tova,
  type WindowOptions,
} from './policies/index.js';
export { type QuantizeModelOptions, quantizeModel } from './quantize_model.js';
export { type RequantizeOptions, requantize } from './requantize.js';
export { RMSNorm, type RMSNormOptions } from './rms_norm.js';
export type { RopeConfig } from './rope_config.js';
