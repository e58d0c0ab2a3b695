// What a GGUF file's metadata says about a mixture of experts.
import type { MoERouteOptions } from '../../ops/moe/moe_route.js';
import type { MetadataReader } from '../config.js';
import { invalidModel } from '../model_error.js';

/** Shape of the mixtures of a decoder. */
export interface MoEConfig {
  readonly numExperts: number;
  /** Width of an expert; those of files with a tensor for each expert may differ. */
  readonly expertSize: number;
  /** Width of the expert that all tokens go to; 0: none. */
  readonly sharedSize: number;
  /** Layers before the first mixture. */
  readonly denseLayers: number;
  /** What `moeRoute` is told, but for the bias. */
  readonly route: Pick<
    MoERouteOptions,
    'topK' | 'scoring' | 'normalize' | 'scale' | 'numGroups' | 'topGroups' | 'groupScore'
  >;
}

/** Architectures whose weights of the chosen are divided by their sum, where metadata does not say. */
const normalizing = new Set(['llama', 'mistral', 'qwen3moe']);

const mostExperts = 2 ** 16;
const mostSize = 2 ** 24;

/** Undefined for a model without experts. Key names as llama.cpp writes them. */
export function readMoE(reader: MetadataReader): MoEConfig | undefined {
  const numExperts = reader.integer('expert_count', 0, mostExperts, 0);
  if (numExperts === 0) return undefined;
  const { architecture } = reader;
  const topK = reader.integer('expert_used_count', 1, numExperts);
  const width = reader.integer('feed_forward_length', 0, mostSize, 0);
  const expertSize = reader.integer('expert_feed_forward_length', 1, mostSize, width || undefined);
  const sharedCount = reader.integer('expert_shared_count', 0, 1024, 0);
  const sharedSize = reader.integer(
    'expert_shared_feed_forward_length',
    0,
    mostSize,
    sharedCount * expertSize,
  );
  const gating = reader.integer('expert_gating_func', 1, 2, 1);
  const normalize = reader.boolean('expert_weights_norm', normalizing.has(architecture));
  const scale = reader.number('expert_weights_scale', 0, 1e6, 1);
  const numGroups = reader.integer('expert_group_count', 0, numExperts, 1) || 1;
  const topGroups = reader.integer('expert_group_used_count', 0, numGroups, numGroups) || numGroups;
  if (numExperts % numGroups !== 0 || topGroups * (numExperts / numGroups) < topK) {
    throw invalidModel(
      `metadata ${architecture}.expert_group_count is ${numGroups}, expected a divisor of ${numExperts} ` +
        `(= expert_count) whose ${topGroups} groups have room for ${topK} (= expert_used_count)`,
    );
  }
  return {
    numExperts,
    expertSize,
    sharedSize,
    denseLayers: reader.integer('leading_dense_block_count', 0, 4096, 0),
    route: {
      topK,
      scoring: gating === 2 ? 'sigmoid' : 'softmax',
      normalize,
      // 0 in files that say nothing.
      scale: scale === 0 ? 1 : scale,
      numGroups,
      topGroups,
      groupScore: gating === 2 ? 'top2' : 'max',
    },
  };
}
