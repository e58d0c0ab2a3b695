import { describe, expect, it } from 'vitest';
import { ggufBytes } from '../../lib/io/index.js';
import { type KVCache, load } from '../../lib/nn/index.js';
import { referenceLogits } from '../reference/decoder.js';
import { type RandomModelOptions, randomModel } from './random_model.js';

const tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 49, 0];

const models: [string, RandomModelOptions][] = [
  ['llama', {}],
  ['llama, output matrix of its own', { untied: true }],
  ['llama 3, frequency factors', { freqFactors: true }],
  ['llama, linear rope scaling', { linearFactor: 4 }],
  ['mistral, sliding window', { window: 5 }],
  ['qwen2, biases', { architecture: 'qwen2' }],
  ['qwen2, output matrix of its own', { architecture: 'qwen2', untied: true }],
  ['qwen3, norms of heads, wide heads', { architecture: 'qwen3' }],
  ['mixtral', { experts: 8 }],
  ['mixtral, a tensor for each expert, widths that differ', { experts: 4, separate: true }],
  ['qwen2moe, an expert for all tokens', { architecture: 'qwen2moe', experts: 6, topK: 4 }],
  ['qwen3moe', { architecture: 'qwen3moe', experts: 16, topK: 4 }],
  ['olmoe, norms of all heads together', { architecture: 'olmoe', experts: 5, topK: 3 }],
  ['deepseek, a dense layer first', { architecture: 'deepseek', experts: 6, topK: 3 }],
];

/** Largest difference. */
function worst(actual: readonly number[], expected: readonly number[]): number {
  return Math.max(...expected.map((value, i) => Math.abs(value - (actual[i] as number))));
}

describe.each(models)('%s', (_, options) => {
  const { content, reference } = randomModel(options);
  const bytes = ggufBytes(content);
  const expected = referenceLogits(reference, tokens);
  // f32 against f64: sums of up to 128 products of about 1, some 20 roundings deep.
  const bound = 1e-4;

  it('all logits at once equal the float64 reference', async () => {
    const decoder = await load(bytes, { activations: 'f32' });
    const logits = decoder.forward(tokens, { logits: 'all' });
    expect(logits.shape).toEqual([tokens.length, 50]);
    expect(worst(logits.toArray(), expected.flat())).toBeLessThan(bound);
    decoder.dispose();
  });

  it.each(['f32', 'f16'] as const)('token by token through a cache in %s', async (dtype) => {
    const decoder = await load(bytes, { activations: 'f32' });
    const cache: KVCache = decoder.createCache({ dtype });
    for (const [i, id] of tokens.entries()) {
      const logits = decoder.forward([id], { cache });
      // Keys and values in f16 carry errors of 2^-11 of values up to 4.
      const limit = dtype === 'f32' ? bound : 3e-2;
      expect(worst(logits.toArray(), expected[i] as number[])).toBeLessThan(limit);
    }
    expect(cache.length).toBe(tokens.length);
    cache.dispose();
    decoder.dispose();
  });
});
