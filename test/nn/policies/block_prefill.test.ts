// Prompts read in blocks: what the pool holds at every moment, probes, and steps on worker threads.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  adore,
  type CachePolicy,
  citrus,
  type Decoder,
  d2o,
  ems,
  epiCache,
  infiniRetri,
  load,
  type PagedDecoderCache,
  snapKV,
} from '../../../lib/nn/index.js';
import { tinyModel } from '../models.js';
import { policies } from './all.js';
import { nested } from './drive.js';

let decoder: Decoder;
let ids: number[];
beforeAll(async () => {
  decoder = await load(tinyModel, { activations: 'f32' });
  const generation = decoder.generate('One day a cat ', { maxTokens: 300, stopTokens: [] });
  await generation.text();
  ids = [...generation.promptTokens, ...generation.tokens].slice(0, 300);
});
afterAll(() => decoder.dispose());

/** The policy, and what happens whenever it scores: then the cache holds the most. */
const watched = (policy: CachePolicy, look: () => void): CachePolicy => ({
  ...policy,
  score: (...scoreArguments) => {
    look();
    return policy.score(...scoreArguments);
  },
});

describe('blocks', () => {
  it.each([
    ['epiCache', (budget: number, block: number) => epiCache({ budget, block, patch: [9, 8, 7] })],
    ['citrus', (budget: number, block: number) => citrus({ budget, block, instruction: [9, 8] })],
    [
      'infiniRetri',
      (budget: number, block: number) => infiniRetri({ budget, block, question: [9] }),
    ],
    ['snapKV', (budget: number, block: number) => ({ ...snapKV({ budget }), block })],
    ['d2o', (budget: number, block: number) => ({ ...d2o({ budget }), block })],
  ])('%s: keys and pages in the pool never exceed budget, block and probe', (_, make) => {
    const pageSize = 16;
    for (const [budget, block] of [
      [32, 16],
      [48, 40],
    ] as const) {
      const policy = make(budget, block);
      const counts: { keys: number; pages: number }[] = [];
      let cache: PagedDecoderCache | undefined;
      const look = (): void => {
        const { keys, stats } = cache as PagedDecoderCache;
        const total = keys.reduce((a, b) => a + b, 0);
        counts.push({ keys: total, pages: stats.usedBytes / pageBytes });
      };
      cache = decoder.createPagedCache({ format: 'f16', pageSize, policy: watched(policy, look) });
      const { numKvHeads, headDim, valueDim, numLayers } = decoder.config;
      const pageBytes = pageSize * numKvHeads * (headDim + valueDim) * 2;
      decoder.forward(ids, { cache });
      for (const id of ids.slice(0, 5)) decoder.forward([id], { cache });
      const probe = policy.probe?.length ?? 0;
      expect(counts.length).toBeGreaterThan((numLayers * 300) / block);
      // Shares of layers are rounded; each layer has a page that is not full.
      const mostKeys = numLayers * (budget + 1 + block + probe);
      for (const { keys, pages } of counts) {
        expect(keys).toBeLessThanOrEqual(mostKeys);
        expect(pages).toBeLessThanOrEqual(mostKeys / pageSize + numLayers);
      }
      expect(cache.peakKeys).toBeLessThanOrEqual(mostKeys);
      expect(cache.peakKeys).toBeGreaterThan(numLayers * budget);
      expect(cache.length).toBe(305);
      cache.dispose();
    }
  });

  it('what attention sums up natively keeps the keys that the weights themselves do', () => {
    const text = ids.slice(0, 200);
    for (const make of [() => ems({ budget: 40 }), () => adore({ budget: 40 })]) {
      const kept = [make(), { ...make(), sums: undefined }].map((policy) => {
        const cache = decoder.createPagedCache({ format: 'f32', policy: { ...policy, block: 64 } });
        decoder.forward(text, { cache });
        const all = nested(decoder.config.numLayers, (layer) => cache.read(layer).positions);
        cache.dispose();
        return all;
      });
      expect(kept[0]).toEqual(kept[1]);
    }
  });

  it('a probe sees the text so far and leaves no trace', () => {
    const text = ids.slice(0, 60);
    const probe = ids.slice(200, 206);
    const layers = decoder.config.numLayers;
    const numKvHeads = decoder.config.numKvHeads;
    // All weights of a plain cache, with the probe as a part of the text.
    const seen: Float32Array[] = [];
    const spy: CachePolicy = {
      ...snapKV({ budget: 400 }),
      sums: undefined,
      observes: () => probe.length,
      score: (before, observation) => {
        const { probabilities, queries, keys } = observation as NonNullable<typeof observation>;
        const sums = new Float32Array(numKvHeads * text.length);
        const group = decoder.config.numHeads / numKvHeads;
        for (let head = 0; head < decoder.config.numHeads; head++) {
          for (let q = 0; q < queries; q++) {
            for (let s = 0; s < text.length; s++) {
              const at = Math.floor(head / group) * text.length + s;
              const weight = probabilities?.data[(head * queries + q) * keys + s] as number;
              sums[at] = (sums[at] as number) + weight;
            }
          }
        }
        seen.push(sums);
        return [...before];
      },
    };
    const plain = decoder.createPagedCache({ format: 'f32', policy: spy });
    decoder.forward([...text, ...probe], { cache: plain });
    const budget = 20;
    const policy = citrus({ budget, window: 4, instruction: probe });
    const cache = decoder.createPagedCache({ format: 'f32', policy });
    decoder.forward(text, { cache });
    expect([cache.length, ...cache.keys]).toEqual([60, ...Array(layers).fill(budget)]);
    for (let layer = 0; layer < layers; layer++) {
      const { positions, keys } = cache.read(layer);
      const all = plain.read(layer);
      for (let head = 0; head < numKvHeads; head++) {
        const scores = (seen[layer] as Float32Array).subarray(head * 60, (head + 1) * 60);
        const order = Array.from({ length: 56 }, (_, s) => s).sort(
          (a, b) => (scores[b] as number) - (scores[a] as number),
        );
        const expected = [...order.slice(0, 16).sort((a, b) => a - b), 56, 57, 58, 59];
        expect([...(positions[head] as Int32Array)]).toEqual(expected);
        const { headDim } = decoder.config;
        const row = (data: Float32Array, s: number) => [
          ...data.subarray(
            (s * numKvHeads + head) * headDim,
            (s * numKvHeads + head + 1) * headDim,
          ),
        ];
        const [first, from] = [row(keys.data, 3), row(all.keys.data, expected[3] as number)];
        // Products over 60 and over 66 rows may round otherwise.
        for (const [c, x] of from.entries()) expect(first[c]).toBeCloseTo(x, 4);
      }
    }
    plain.dispose();
    cache.dispose();
  });

  const some = ['cake', 'd2o', 'ems', 'lookM', 'elasticCache', 'guiKV with screens', 'epiCache'];
  it.each(some)('%s: on a worker thread the same bits', async (name) => {
    const make = policies[name] as (budget: number) => CachePolicy;
    const part = ids.slice(0, 90);
    const run = async (isAsync: boolean): Promise<[Float32Array, Float32Array]> => {
      const cache = decoder.createPagedCache({ format: 'i4', policy: { ...make(24), block: 32 } });
      const logits = isAsync
        ? await decoder.forwardAsync(part, { cache })
        : decoder.forward(part, { cache });
      const { keys } = cache.read(1);
      cache.dispose();
      return [logits.data, keys.data];
    };
    expect(await run(true)).toEqual(await run(false));
  });

  it('generate takes a policy with a probe and a block', async () => {
    const generation = decoder.generate(ids, {
      maxTokens: 70, // more than are added before a policy decides anew
      stopTokens: [],
      cache: { format: 'int4', policy: citrus({ budget: 64, block: 48, instruction: [9, 8, 7] }) },
    });
    await generation.text();
    expect(generation.tokens.length).toBe(70);
  });
});
