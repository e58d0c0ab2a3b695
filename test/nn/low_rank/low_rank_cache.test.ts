import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Tensor } from '../../../lib/index.js';
import { ggufBytes } from '../../../lib/io/index.js';
import {
  cacheSamples,
  type Decoder,
  fitLowRank,
  type LowRankCacheOptions,
  type LowRankFactors,
  load,
  perplexity,
} from '../../../lib/nn/index.js';
import { isas } from '../../reference/op_checks.js';
import { examples, tinyModel } from '../models.js';
import { randomModel } from '../random_model.js';
import { expectRefusal } from '../refusals.js';

const ids = Array.from({ length: 70 }, (_, i) => (i * 7 + (i % 3)) % 50);

/** Factors that lose nothing. */
function fullRank(decoder: Decoder): LowRankFactors[] {
  const { numKvHeads, headDim } = decoder.config;
  return cacheSamples(decoder, ids).map((layer) =>
    fitLowRank(layer, { keyRank: numKvHeads * headDim }),
  );
}

/** Logits of `steps` tokens at a time. */
function logitsOf(
  decoder: Decoder,
  steps: readonly number[],
  options?: LowRankCacheOptions,
): number[] {
  const cache = options && decoder.createLowRankCache(options);
  const plain = cache ?? decoder.createCache();
  const all: number[] = [];
  let at = 0;
  for (const count of steps) {
    const logits = decoder.forward(ids.slice(at, at + count), { cache: plain, logits: 'all' });
    all.push(...logits.data.subarray(0, logits.size));
    at += count;
  }
  plain.dispose();
  return all;
}

/** Largest difference, relative to the largest number. */
function difference(a: readonly number[], b: readonly number[]): number {
  const largest = Math.max(...b.map(Math.abs));
  return Math.max(...b.map((x, i) => Math.abs(x - (a[i] as number)))) / largest;
}

describe('a cache of full rank', () => {
  it.each([
    ['llama', {}],
    ['llama with frequency factors', { freqFactors: true }],
    ['llama, positions divided', { linearFactor: 4 }],
    ['mistral, sliding window', { window: 9 }],
    ['qwen2', { architecture: 'qwen2' }],
    ['qwen3', { architecture: 'qwen3' }],
  ] as const)('%s: gives the logits of the dense cache', async (_, model) => {
    const decoder = await load(ggufBytes(randomModel(model).content), { activations: 'f32' });
    const factors = fullRank(decoder);
    const dense = logitsOf(decoder, [70]);
    for (const steps of [[70], [1, 30, 1, 1, 20, 17], new Array<number>(70).fill(1)]) {
      for (const [recent, pageSize] of [
        [0, 8],
        [10, 16],
        [100, 8],
      ] as const) {
        const actual = logitsOf(decoder, steps, {
          ...{ factors, recent, pageSize, format: 'f32', recentFormat: 'f32' },
        });
        // Keys and values through an orthonormal matrix and back in f32: 2^-23 sqrt(32) or so.
        expect(difference(actual, dense)).toBeLessThan(5e-5);
      }
    }
    decoder.dispose();
  });

  it('all levels agree, threads change no bit', async () => {
    const bytes = ggufBytes(randomModel().content);
    const decoder = await load(bytes, { activations: 'f32' });
    const options = { factors: fullRank(decoder), recent: 8, pageSize: 8, format: 'i8' } as const;
    const steps = [40, 1, 1, 28];
    const expected = logitsOf(decoder, steps, options);
    decoder.dispose();
    for (const isa of isas) {
      const forced = await load(bytes, { activations: 'f32', isa });
      expect(difference(logitsOf(forced, steps, options), expected)).toBeLessThan(2e-2);
      forced.dispose();
    }
    for (const threads of [1, 2, 3, 7]) {
      const forced = await load(bytes, { activations: 'f32', threads });
      expect(logitsOf(forced, steps, options)).toEqual(expected);
      forced.dispose();
    }
  });

  it('async equals sync, and a step that was taken back leaves nothing', async () => {
    const decoder = await load(ggufBytes(randomModel().content), { activations: 'f32' });
    const options = { factors: fullRank(decoder), recent: 4, pageSize: 8 };
    const expected = logitsOf(decoder, [40, 30], options);
    const cache = decoder.createLowRankCache(options);
    const first = await decoder.forwardAsync(ids.slice(0, 40), { cache, logits: 'all' });
    const stop = AbortSignal.abort(new Error('stopped'));
    await expect(decoder.forwardAsync(ids.slice(0, 20), { cache, signal: stop })).rejects.toThrow(
      'stopped',
    );
    cache.begin(20).abort();
    expect([cache.length, cache.compressed]).toEqual([40, 32]);
    const second = await decoder.forwardAsync(ids.slice(40, 70), { cache, logits: 'all' });
    expect([
      ...first.data.subarray(0, first.size),
      ...second.data.subarray(0, second.size),
    ]).toEqual(expected);
    cache.dispose();
    decoder.dispose();
  });
});

describe('the example model', () => {
  const text = readFileSync(join(examples, 'train-tiny/heldout.txt'), 'utf8');
  let decoder: Decoder;
  beforeAll(async () => {
    decoder = await load(tinyModel, { activations: 'f32' });
  });
  afterAll(() => decoder.dispose());

  it('predicts nearly as well with half the channels, also in i4, and worse with fewer', async () => {
    const samples = cacheSamples(decoder, text.slice(8000, 8500));
    const lossOf = async (keyRank: number, format: 'f16' | 'i4'): Promise<number> => {
      const factors = samples.map((layer) => fitLowRank(layer, { keyRank }));
      const cache = () => decoder.createLowRankCache({ factors, format, recent: 16, pageSize: 16 });
      return (await perplexity(decoder, text.slice(0, 400), { step: 16, cache })).loss;
    };
    const { loss } = await perplexity(decoder, text.slice(0, 400));
    const [half, small, eighth] = [
      await lossOf(32, 'f16'),
      await lossOf(32, 'i4'),
      await lossOf(8, 'f16'),
    ];
    expect(half - loss).toBeLessThan(0.01);
    expect(small - loss).toBeLessThan(0.01);
    expect(eighth).toBeGreaterThan(half);
  });

  it('generates, and takes the memory that it says', async () => {
    const samples = cacheSamples(decoder, text.slice(8000, 8300));
    const factors = samples.map((layer) => fitLowRank(layer, { keyRank: 16 }));
    const cache = decoder.createLowRankCache({ factors, recent: 16, pageSize: 16, capacity: 128 });
    const generated = await decoder.generate('Once upon a time', { cache, maxTokens: 60 }).text();
    expect(generated.length).toBeGreaterThan(20);
    // 6 layers, 128 tokens, 2 * 16 features of 2 bytes; 128 + 16 tokens, 2 * 64 channels of 2 bytes.
    expect(cache.stats.featureBytes).toBe(6 * 128 * 32 * 2);
    expect(cache.stats.recentBytes).toBe(6 * 144 * 128 * 2);
    expect(cache.stats.workBytes).toBe(4 * 128 * (128 + 32 + 1));
    expect(cache.compressed).toBe(Math.floor((cache.length - 16) / 16) * 16);
    cache.dispose();
    cache.dispose();
    expect(cache.disposed).toBe(true);
    await expectRefusal(() => cache.need(1), 'BL_DETACHED', 'after dispose()');
    await expectRefusal(() => cache.acquire(), 'BL_DETACHED', 'after dispose()');
    await expectRefusal(() => cache.begin(1), 'BL_DETACHED', 'after dispose()');
  });

  it('refuses what cannot be', async () => {
    const [layer] = cacheSamples(decoder, 'Once upon a time');
    const factors = decoder.parts.layers.map(() =>
      fitLowRank(layer as object as never, { keyRank: 4 }),
    );
    const make = (options: object) => () =>
      decoder.createLowRankCache({ factors, ...options } as LowRankCacheOptions);
    await expectRefusal(make({ capacity: 0 }), 'BL_OUT_OF_RANGE', 'capacity is 0');
    await expectRefusal(make({ recent: -1 }), 'BL_OUT_OF_RANGE', 'recent is -1');
    await expectRefusal(make({ pageSize: 12 }), 'BL_OUT_OF_RANGE', 'a multiple of 8');
    await expectRefusal(make({ pageSize: 512 }), 'BL_OUT_OF_RANGE', 'pageSize is 512');
    await expectRefusal(make({ format: 'i3' }), 'BL_INVALID_FORMAT', 'format is "i3"');
    await expectRefusal(make({ recentFormat: 'i8' }), 'BL_INVALID_FORMAT', 'recentFormat is "i8"');
    await expectRefusal(make({ other: 1 }), 'BL_INVALID_ARGUMENT', 'other');
    await expectRefusal(make({ factors: undefined }), 'BL_INVALID_ARGUMENT', 'factors');
    await expectRefusal(make({ factors: [] }), 'BL_INVALID_SHAPE', 'factors.length is 0');
    const { keys, values } = factors[0] as LowRankFactors;
    const wrong = [
      ...factors.slice(1),
      { keys, values: { ...values, up: Tensor.zeros('f32', [4, 4]) } },
    ];
    await expectRefusal(make({ factors: wrong }), 'BL_INVALID_SHAPE', 'factors[5].values.up');
    const cache = make({ capacity: 20 })();
    await expectRefusal(() => cache.need(21), 'BL_OUT_OF_RANGE', 'exceed the context of 20');
    const release = cache.acquire();
    await expectRefusal(() => cache.acquire(), 'BL_INVALID_ARGUMENT', 'another step');
    release();
    cache.dispose();
  });
});
