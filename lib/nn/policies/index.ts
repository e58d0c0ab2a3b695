export { type AdoreOptions, adore } from './adore.js';
export { type CakeOptions, cake } from './cake.js';
export { type ChunkKVOptions, chunkKV } from './chunk_kv.js';
export { type CitrusOptions, citrus, type ProbeOptions } from './citrus.js';
export { type CompressKVOptions, compressKV } from './compress_kv.js';
export { type D2OOptions, d2o } from './d2o.js';
export { elasticCache } from './elastic_cache.js';
export { type EMSOptions, ems } from './ems.js';
export { type EpiCacheOptions, epiCache } from './epi_cache.js';
export {
  clusterEpisodes,
  type Episodes,
  EpisodicCache,
  type EpisodicCacheOptions,
  meanEmbedding,
} from './episodes.js';
export type { FixedPlaceOptions } from './fixed_place.js';
export { type GuiKVOptions, guiKV } from './gui_kv.js';
export { type InfiniRetriOptions, infiniRetri } from './infini_retri.js';
export { type LookMOptions, lookM } from './look_m.js';
export {
  type KeySimilarityOptions,
  keySimilarity,
  type RetrievalHeadsOptions,
  retrievalHeads,
} from './measure.js';
export type { PolicyOptions, PositionRange, SnapKVOptions, WindowOptions } from './parts.js';
export {
  h2o,
  type PyramidKVOptions,
  pyramidKV,
  type StreamingLLMOptions,
  scissorhands,
  snapKV,
  streamingLLM,
  tova,
} from './policies.js';
export type {
  CachePolicy,
  LayerContent,
  LayerView,
  Observation,
  ObservedSum,
  ScoreStep,
} from './policy.js';
export { prefixKV } from './prefix_kv.js';
