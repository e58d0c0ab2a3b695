import { describe, expect, it } from 'vitest';
import { Tensor } from '../../../lib/index.js';
import { ggufBytes } from '../../../lib/io/index.js';
import {
  cacheSamples,
  type Decoder,
  fitKeyMean,
  load,
  type PagedCacheOptions,
  streamingLLM,
} from '../../../lib/nn/index.js';
import { randomModel, randomNumbers } from '../random_model.js';
import { expectRefusal } from '../refusals.js';

const ids = Array.from({ length: 60 }, (_, i) => (i * 7 + (i % 3)) % 50);

function logitsOf(decoder: Decoder, options: PagedCacheOptions): number[] {
  const cache = decoder.createPagedCache({ pageSize: 16, recent: 8, ...options });
  const all: number[] = [];
  for (const [begin, end] of [
    [0, 33],
    [33, 34],
    [34, 60],
  ] as const) {
    const logits = decoder.forward(ids.slice(begin, end), { cache, logits: 'all' });
    all.push(...logits.data.subarray(0, logits.size));
  }
  cache.dispose();
  return all;
}

/** Root of the mean square difference. */
function distance(a: readonly number[], b: readonly number[]): number {
  return Math.sqrt(a.reduce((sum, x, i) => sum + (x - (b[i] as number)) ** 2, 0) / a.length);
}

const means = (decoder: Decoder): Tensor<'f32'>[] =>
  cacheSamples(decoder, ids).map((layer, i) => {
    const { freqFactors } = decoder.parts.layers[i]?.attention.options ?? {};
    return fitKeyMean(layer, { ...decoder.config.rope, freqFactors });
  });

describe('fitKeyMean', () => {
  it.each([
    ['llama', { freqFactors: true }],
    ['positions divided', { linearFactor: 4 }],
    ['qwen3', { architecture: 'qwen3' }],
  ] as const)('%s: is the mean of the keys in the plain cache', async (_, model) => {
    const decoder = await load(ggufBytes(randomModel(model).content), { activations: 'f32' });
    const cache = decoder.createCache({ capacity: ids.length });
    decoder.forward(ids, { cache }).dispose();
    for (const [layer, mean] of means(decoder).entries()) {
      const { keys } = cache.layer(layer);
      for (let i = 0; i < mean.size; i++) {
        let sum = 0;
        for (let t = 0; t < ids.length; t++) sum += keys.data[t * mean.size + i] as number;
        expect(mean.data[i]).toBeCloseTo(sum / ids.length, 5);
      }
    }
    cache.dispose();
    decoder.dispose();
  });

  it('refuses samples without keys', async () => {
    const none = Tensor.zeros('f32', [0, 1, 4]);
    const rope = { mode: 'half', theta: 10000, rotaryDim: 4, scaling: undefined } as const;
    await expectRefusal(
      () => fitKeyMean({ keys: none, values: none }, rope),
      'BL_INVALID_SHAPE',
      'keys has shape [0,1,4]',
    );
  });
});

describe('keyMeans of a cache in pages', () => {
  it('any mean gives the same logits; also where a policy writes keys again', async () => {
    const decoder = await load(ggufBytes(randomModel({ architecture: 'qwen2' }).content), {
      activations: 'f32',
    });
    const { numKvHeads, headDim } = decoder.config;
    const random = randomNumbers(9);
    const some = Array.from({ length: 2 }, () => {
      const data = Float32Array.from({ length: numKvHeads * headDim }, random);
      return new Tensor('f32', data, [numKvHeads, headDim]);
    });
    for (const options of [
      { format: 'f32' },
      { format: 'f32', recent: 0 },
      { format: 'f32', policy: streamingLLM({ budget: 20 }) },
    ] as const) {
      // 2^-11 of keys in f16 among the recent ones.
      const plain = logitsOf(decoder, options);
      expect(distance(logitsOf(decoder, { ...options, keyMeans: some }), plain)).toBeLessThan(
        options.recent === 0 ? 1e-5 : 3e-3,
      );
    }
    decoder.dispose();
  });

  it('keys with a mean of their own lose less in blocks of 4 bits', async () => {
    const content = randomModel({ architecture: 'qwen2' }).content;
    // The biases of the keys times 4 at frequencies that hardly turn: keys with a mean far from 0.
    const tensors = [...content.tensors].map((tensor) => {
      if (!tensor.name.endsWith('attn_k.bias')) return tensor;
      const bytes = tensor.data as Uint8Array;
      const bias = new Float32Array(bytes.slice().buffer).map((x, i) => (i % 8 > 4 ? 4 * x : x));
      return { ...tensor, data: new Uint8Array(bias.buffer) };
    });
    const decoder = await load(ggufBytes({ ...content, tensors }), { activations: 'f32' });
    const format = { keys: 'bfp4', values: 'f32' } as const;
    const exact = logitsOf(decoder, { format: 'f32', recent: 0 });
    const plain = distance(logitsOf(decoder, { format, recent: 0 }), exact);
    const keyMeans = means(decoder);
    const smooth = distance(logitsOf(decoder, { format, recent: 0, keyMeans }), exact);
    expect(smooth).toBeLessThan(0.8 * plain);
    decoder.dispose();
  });

  it('refuses means of other shapes', async () => {
    const decoder = await load(ggufBytes(randomModel().content), { activations: 'f32' });
    const make = (keyMeans: unknown) => () =>
      decoder.createPagedCache({ keyMeans } as PagedCacheOptions);
    const good = Tensor.zeros('f32', [2, 16]);
    await expectRefusal(make([good]), 'BL_INVALID_SHAPE', 'keyMeans.length is 1, expected 2');
    const flat = Tensor.zeros('f32', [32]);
    await expectRefusal(make([good, flat]), 'BL_INVALID_SHAPE', 'keyMeans[1] is f32 [32]');
    await expectRefusal(make(3), 'BL_INVALID_ARGUMENT', 'keyMeans');
    decoder.dispose();
  });
});
