export {
  cake,
  chunkKV,
  h2o,
  type PolicyOptions,
  pyramidKV,
  type SnapKVOptions,
  scissorhands,
  snapKV,
  streamingLLM,
  tova,
  type WindowOptions,
} from './policies.js';
export type { CachePolicy, LayerView, Observation } from './policy.js';
