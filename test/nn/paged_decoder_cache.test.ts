import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  cake,
  type Decoder,
  load,
  perplexity,
  pyramidKV,
  snapKV,
  streamingLLM,
} from '../../lib/nn/index.js';
import { expectError } from '../reference/op_checks.js';
import { tinyModel } from './models.js';
import { policies } from './policies/all.js';

const prompt = 'Once upon a time there was a little dog who lived in a house by the sea. ';
let decoder: Decoder;
beforeAll(async () => {
  decoder = await load(tinyModel, { activations: 'f32' });
});
afterAll(() => decoder.dispose());

describe('a decoder with a cache in pages', () => {
  it.each(['f32', 'f16'] as const)('%s: speaks the text of the plain cache', async (format) => {
    const plain = await decoder.generate(prompt, { maxTokens: 40 }).text();
    const paged = decoder.generate(prompt, { maxTokens: 40, cache: { format } });
    expect(await paged.text()).toBe(plain);
  });

  it.each([
    ['f8e4m3', 2e-3],
    ['int8', 1e-3],
    ['bfp8', 1e-3],
    ['int4', 1e-2],
    ['bfp4', 2e-2],
    ['int2', 3e-2],
  ] as const)('%s: the loss on its own text moves by less than %d', async (format, bound) => {
    const ids = await story();
    const { loss } = await perplexity(decoder, ids, { step: 16 });
    const { loss: quantized } = await perplexity(decoder, ids, {
      step: 16,
      cache: { format, recent: 16 },
    });
    expect(Math.abs(quantized - loss)).toBeLessThan(bound);
    expect(quantized).not.toBe(loss);
  });

  it('keys and values may differ in format, and a cache goes on where it was', async () => {
    const cache = decoder.createPagedCache({ format: { keys: 'f16', values: 'i8' } });
    const first = await decoder.generate(prompt, { maxTokens: 8, cache }).text();
    expect(cache.length).toBeGreaterThan(8);
    const { length } = cache;
    const more = await decoder.generate(first.slice(-1), { maxTokens: 8, cache }).text();
    expect(more).not.toBe('');
    expect(cache.length).toBeGreaterThan(length);
    cache.rewind(4);
    expect([cache.length, cache.keys[0]]).toEqual([4, 4]);
    cache.dispose();
    expectError(() => cache.rewind(0), 'BL_DETACHED', 'PagedDecoderCache: rewind after dispose()');
  });

  it('sync and async steps, and steps of any size, agree', async () => {
    const ids = (await story()).slice(0, 70);
    const run = (cuts: number[]) => {
      const cache = decoder.createPagedCache({ format: 'f32', pageSize: 16 });
      let at = 0;
      let logits: Float32Array = new Float32Array();
      for (const cut of [...cuts, ids.length]) {
        logits = decoder.forward(ids.slice(at, cut), { cache }).data;
        at = cut;
      }
      cache.dispose();
      return logits;
    };
    const whole = run([]);
    const worst = (other: Float32Array) =>
      other.reduce((most, x, i) => Math.max(most, Math.abs(x - (whole[i] as number))), 0);
    // Attention of a query is the same however many others stand beside it; products round otherwise for other numbers of rows.
    expect(worst(run([1, 2, 30, 69]))).toBeLessThan(1e-4);
    const cache = decoder.createPagedCache({ format: 'f32', pageSize: 16 });
    expect(await decoder.forwardAsync(ids, { cache }).then((x) => [...x.data])).toEqual([...whole]);
    cache.dispose();
  });
});

describe('compression policies', () => {
  it.each(Object.entries(policies))(
    '%s: a budget for all keys changes nothing',
    async (_, make) => {
      const ids = (await story()).slice(0, 100);
      const plain = await perplexity(decoder, ids, { step: 16, cache: { format: 'f32' } });
      const cache = () => ({ format: 'f32' as const, policy: make(400) });
      expect((await perplexity(decoder, ids, { step: 16, cache })).loss).toBe(plain.loss);
    },
  );

  it.each(Object.entries(policies))(
    '%s: keys stay within the budget, at the peak within a step more, and the model still speaks',
    async (name, make) => {
      const ids = await story();
      const budget = 48;
      const cache = decoder.createPagedCache({ format: 'f16', policy: make(budget) });
      const layers = cache.numLayers;
      for (let at = 0; at < ids.length; at += 16) {
        decoder.forward(ids.slice(at, at + 16), { cache });
        const total = cache.keys.reduce((sum, keys) => sum + keys, 0);
        expect(total).toBeLessThanOrEqual(budget * layers);
        // Layers may differ, and use all of it; PrefixKV's equal shares of importance leave some.
        if (name !== 'prefixKV') expect(total).toBe(Math.min(budget, cache.length) * layers);
      }
      expect(cache.length).toBe(ids.length);
      expect(cache.peakKeys).toBeLessThanOrEqual((budget + 16 + cache.probeTokens + 1) * layers);
      cache.dispose();
      const options = () => ({ format: 'f16' as const, policy: make(budget) });
      const { loss } = await perplexity(decoder, ids, { step: 16, cache: options });
      const full = await perplexity(decoder, ids, { step: 16 });
      // A model of stories: losing all but 48 of 300 tokens costs something, and far from everything.
      // Elastic Cache is made for one prompt: after each of its steps here, all but the last of the newest tokens may be merged.
      expect(loss - full.loss).toBeLessThan(name === 'elasticCache' ? 0.5 : 0.25);
    },
  );

  it('the prompt is computed in steps: memory is bounded by budget and step, not by the prompt', async () => {
    const ids = [...(await story()), ...(await story())].slice(0, 500);
    const cache = decoder.createPagedCache({ format: 'f16', policy: snapKV({ budget: 32 }) });
    const { bytes } = cache.stats;
    decoder.forward(ids, { cache });
    expect(cache.peakKeys).toBeLessThanOrEqual((32 + 256) * cache.numLayers);
    expect(Math.max(...cache.keys)).toBe(32);
    expect(cache.stats.bytes).toBe(bytes);
    cache.dispose();
  });

  it('layers differ where the policy says so', async () => {
    const ids = await story();
    for (const make of [pyramidKV, cake]) {
      const cache = decoder.createPagedCache({ policy: make({ budget: 64 }) });
      decoder.forward(ids, { cache });
      expect(new Set(cache.keys).size).toBeGreaterThan(1);
      cache.dispose();
    }
  });

  it('what can not be is refused', () => {
    expectError(
      () => snapKV({ budget: 8, window: 8 }),
      'BL_OUT_OF_RANGE',
      'snapKV: window is 8, expected less than 8 (= budget)',
    );
    expectError(
      () => snapKV({ budget: 8, pool: 4 }),
      'BL_OUT_OF_RANGE',
      'snapKV: pool is 4, expected an odd number',
    );
    expectError(
      () => decoder.createPagedCache({ format: 'int3' as 'int4' }),
      'BL_INVALID_FORMAT',
      'PagedDecoderCache: format is "int3", expected one of f32, f16, bf16, f8e4m3, i8, i4, i2, bfp8, bfp4',
    );
    const cache = decoder.createPagedCache({ policy: streamingLLM({ budget: 8 }) });
    expectError(() => cache.rewind(0), 'BL_UNSUPPORTED', 'PagedDecoderCache: rewind with a policy');
    expectError(
      () => cache.need(10_000),
      'BL_OUT_OF_RANGE',
      'PagedDecoderCache: 0 tokens and 10000 more exceed the context of 512',
    );
    cache.dispose();
  });
});

let ids: Promise<number[]> | undefined;
/** Some 300 tokens that the model itself has written. */
function story(): Promise<number[]> {
  ids ??= (async () => {
    const generation = decoder.generate(prompt, { maxTokens: 280, stopTokens: [] });
    await generation.text();
    return [...generation.promptTokens, ...generation.tokens];
  })();
  return ids;
}
