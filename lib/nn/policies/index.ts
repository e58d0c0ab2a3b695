export {
  type CakeOptions,
  type ChunkKVOptions,
  cake,
  chunkKV,
  h2o,
  type PolicyOptions,
  pyramidKV,
  type SnapKVOptions,
  type StreamingLLMOptions,
  scissorhands,
  snapKV,
  streamingLLM,
  tova,
  type WindowOptions,
} from './policies.js';
export type { CachePolicy, LayerView, Observation } from './policy.js';
