// A decoder's step of one token as a recorded sequence: the same bits as by its operators, whatever happens to caches in
// between. (test/cuda/decoder_graph.test.ts has the same of devices.)
import { describe, expect, it } from 'vitest';
import { ggufBytes } from '../../lib/io/index.js';
import { native } from '../../lib/native.js';
import { type Decoder, type KVCache, load, MoELayer } from '../../lib/nn/index.js';
import { tinyModel } from './models.js';
import { type RandomModelOptions, randomModel } from './random_model.js';

const code = (value: string) => expect.objectContaining({ code: value });
const prompt = [1, 20, 30, 40];
const tokens = [4, 5, 6, 7, 8];

/** Logits after each of `tokens`, one by one. */
const steps = (decoder: Decoder, cache: KVCache, ids: readonly number[] = tokens): number[][] =>
  ids.map((token) => decoder.forward([token], { cache }).toArray());

/** How many sequences are recorded, and run, during `body`. */
async function counted(body: () => unknown): Promise<{ recorded: number; run: number }> {
  const counts = { recorded: 0, run: 0 };
  const { recordCalls, runRecorded, runAsync } = native;
  native.recordCalls = (calls) => {
    counts.recorded++;
    return recordCalls(calls);
  };
  native.runRecorded = (calls) => {
    counts.run++;
    runRecorded(calls);
  };
  native.runAsync = (calls, state) => {
    if (!Array.isArray(calls)) counts.run++;
    return runAsync(calls, ...(state === undefined ? [] : [state]));
  };
  try {
    await body();
  } finally {
    Object.assign(native, { recordCalls, runRecorded, runAsync });
  }
  return counts;
}

describe('a step of one token', () => {
  const models: [string, RandomModelOptions][] = [
    ['llama', { architecture: 'llama' }],
    ['qwen3', { architecture: 'qwen3' }],
    ['experts', { architecture: 'qwen2moe', experts: 6, topK: 2, expertSize: 64 }],
  ];
  for (const [name, options] of models) {
    it.each(['f32', 'f16'] as const)(
      `is recorded with the same bits: ${name}, %s`,
      async (dtype) => {
        const bytes = ggufBytes(randomModel(options).content);
        const [decoder, plain] = [await load(bytes), await load(bytes, { graphs: false })];
        const [cache, other] = [decoder, plain].map((d) => d.createCache({ capacity: 24, dtype }));
        if (cache === undefined || other === undefined) throw new Error('no cache');
        decoder.forward(prompt, { cache });
        plain.forward(prompt, { cache: other });
        const logits: number[][] = [];
        expect(await counted(() => logits.push(...steps(decoder, cache)))).toEqual({
          recorded: 1,
          run: tokens.length - 1,
        });
        expect(await counted(() => expect(logits).toEqual(steps(plain, other)))).toEqual({
          recorded: 0,
          run: 0,
        });
        // On a worker thread too; after a prompt; and from an earlier place.
        const asynchronous = await decoder.forwardAsync([9], { cache });
        expect(asynchronous.toArray()).toEqual(plain.forward([9], { cache: other }).toArray());
        decoder.forward([3, 2, 1], { cache });
        plain.forward([3, 2, 1], { cache: other });
        expect(steps(decoder, cache, [7, 7])).toEqual(steps(plain, other, [7, 7]));
        for (const one of [cache, other]) one.rewind(prompt.length);
        expect(steps(decoder, cache)).toEqual(logits);
        for (const layer of [0, 1]) {
          for (const part of ['keys', 'values'] as const) {
            const rows = (c: KVCache) => c.layer(layer)[part].slice(0, 9).toArray();
            expect(rows(cache)).toEqual(rows(other).slice(0, rows(cache).length));
          }
        }
        for (const one of [cache, other, decoder, plain]) one.dispose();
      },
    );
  }

  it('of several caches in turn, sync and async at once, is each one’s own', async () => {
    const decoder = await load(tinyModel);
    const plain = await load(tinyModel, { graphs: false });
    const caches = [0, 1, 2].map(() => decoder.createCache({ capacity: 12 }));
    const texts = [tokens, [20, 30, 40, 50, 60], [2, 3, 2, 3, 2]];
    const results: number[][][] = [[], [], []];
    for (let i = 0; i < tokens.length; i++) {
      const pending = caches
        .slice(0, 2)
        .map((cache, c) => decoder.forwardAsync([texts[c]?.[i] as number], { cache }));
      results[2]?.push(...steps(decoder, caches[2] as KVCache, [texts[2]?.[i] as number]));
      for (const [c, result] of (await Promise.all(pending)).entries()) {
        results[c]?.push(result.toArray());
      }
    }
    for (const [c, text] of texts.entries()) {
      expect(results[c]).toEqual(steps(plain, plain.createCache({ capacity: 12 }), text));
    }
    const out = { maxTokens: 30 };
    expect(await decoder.generate('Once upon a time', out).text()).toBe(
      await plain.generate('Once upon a time', out).text(),
    );
    for (const one of [...caches, decoder, plain]) one.dispose();
  });

  it('of a cache that decoders share is each one’s own', async () => {
    const [decoder, second] = [await load(tinyModel), await load(tinyModel)];
    const plain = await load(tinyModel, { graphs: false });
    const cache = decoder.createCache({ capacity: 16 });
    const expected = steps(plain, plain.createCache({ capacity: 16 }), [1, 2, 3, 4, 5, 6, 7]);
    expect([
      ...steps(decoder, cache, [1, 2, 3]),
      ...steps(second, cache, [4, 5, 6]),
      ...steps(decoder, cache, [7]),
    ]).toEqual(expected);
    for (const one of [cache, decoder, second, plain]) one.dispose();
  });

  it('tells where its token went', async () => {
    const [, [, options]] = models.slice(1) as [unknown, [string, RandomModelOptions]];
    const decoder = await load(ggufBytes(randomModel(options).content));
    const { mlp } = decoder.parts.layers[0] ?? {};
    const cache = decoder.createCache({ capacity: 16 });
    steps(decoder, cache);
    const routes = () => (mlp as MoELayer).lastRoutes?.indices.toArray();
    const last = routes();
    expect(mlp).toBeInstanceOf(MoELayer);
    decoder.forward(prompt);
    expect(routes()).toHaveLength(2 * prompt.length);
    cache.rewind(4);
    steps(decoder, cache, tokens.slice(4));
    expect(routes()).toEqual(last);
    for (const one of [cache, decoder]) one.dispose();
  });

  it('refuses what it refused, and lives on', async () => {
    const decoder = await load(tinyModel);
    const cache = decoder.createCache({ capacity: 4 });
    steps(decoder, cache, [1, 2, 3]);
    const signal = AbortSignal.abort();
    await expect(decoder.forwardAsync([4], { cache, signal })).rejects.toThrow(/abort/i);
    expect(cache.length).toBe(3);
    expect(() => decoder.forward([decoder.config.vocabSize], { cache })).toThrow(
      code('BL_OUT_OF_RANGE'),
    );
    const [last] = steps(decoder, cache, [4]);
    expect(() => decoder.forward([5], { cache })).toThrow(code('BL_OUT_OF_RANGE'));
    cache.rewind(3);
    const running = decoder.forwardAsync([4], { cache });
    decoder.dispose();
    expect((await running).toArray()).toEqual(last);
    cache.dispose();
    expect(() => decoder.forward([1])).toThrow(code('BL_DETACHED'));
  });
});
