// What policies are told beforehand, and caches of episodes.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  clusterEpisodes,
  compressKV,
  type Decoder,
  EpisodicCache,
  epiCache,
  keySimilarity,
  load,
  meanEmbedding,
  retrievalHeads,
} from '../../../lib/nn/index.js';
import { expectError } from '../../reference/op_checks.js';
import { gaussian } from '../../reference/random.js';
import { tinyModel } from '../models.js';

let decoder: Decoder;
let ids: number[];
beforeAll(async () => {
  decoder = await load(tinyModel, { activations: 'f32' });
  const text =
    'Once upon a time, there was a kind girl named Lily. She had a red ring. It was cold. ';
  ids = decoder.tokenizer?.encode(text.repeat(3)) ?? [];
});
afterAll(() => decoder.dispose());

describe('retrievalHeads', () => {
  it('sums the weights of the needle while the answer is said', async () => {
    const needle = [5, 9] as const;
    const answer = [30, 34] as const;
    const { heads, scores } = await retrievalHeads(decoder, ids, { needle, answer, perLayer: 2 });
    const { numHeads } = decoder.config;
    const expected: Float64Array[] = [];
    const spy = {
      ...compressKV({ budget: 400 }),
      sums: undefined,
      observes: (count: number) => count,
      score: (
        before: readonly Float32Array[],
        seen?: { probabilities: { data: Float32Array } },
      ) => {
        const data = seen?.probabilities.data as Float32Array;
        const n = ids.length;
        expected.push(
          Float64Array.from({ length: numHeads }, (_, head) => {
            let sum = 0;
            for (let q = 29; q < 33; q++) {
              for (let s = 5; s < 9; s++) sum += data[(head * n + q) * n + s] as number;
            }
            return sum;
          }),
        );
        return [...before];
      },
    };
    const cache = decoder.createPagedCache({ format: 'f32', policy: spy as never });
    decoder.forward(ids, { cache });
    cache.dispose();
    expect(ids.length).toBeLessThan(256);
    expect(scores.length).toBe(decoder.parts.layers.length);
    for (const [layer, list] of scores.entries()) {
      const sums = expected[layer] as Float64Array;
      for (const [head, sum] of list.entries()) expect(sum).toBeCloseTo(sums[head] as number, 5);
      const order = [...sums.keys()].sort((a, b) => (sums[b] as number) - (sums[a] as number));
      expect(heads[layer]).toEqual(order.slice(0, 2));
    }
    const policy = compressKV({ budget: 24, heads });
    const compressed = decoder.createPagedCache({ policy });
    decoder.forward(ids, { cache: compressed });
    expect(compressed.keys[0]).toBe(24);
    compressed.dispose();
  });

  it('refuses ranges that are not in the text', async () => {
    const options = { needle: [5, 9] as const, answer: [8, 12] as const };
    await expect(retrievalHeads(decoder, ids, options)).rejects.toThrow(
      `retrievalHeads: answer is [8,12], expected whole numbers begin < end from 9 to ${ids.length}`,
    );
  });
});

describe('keySimilarity', () => {
  it('refuses a block of no tokens, and options that it does not know', async () => {
    const refused = (options: unknown) => keySimilarity(decoder, ids, options as never);
    await expect(refused({ budget: 16, block: 0 })).rejects.toThrow(
      'PagedDecoderCache: policy.block is 0, expected a whole number of at least 1',
    );
    await expect(refused(undefined)).rejects.toThrow('keySimilarity: options is undefined');
    await expect(refused({ budget: 16, blok: 8 })).rejects.toThrow('option "blok" is not known');
  });

  it('is 1 in the first layer, less behind, and 1 where nothing is evicted', async () => {
    const similarity = await keySimilarity(decoder, ids, { budget: 16, block: 16 });
    expect(similarity.length).toBe(decoder.parts.layers.length);
    expect(similarity[0]).toBeCloseTo(1, 5);
    expect(Math.min(...similarity)).toBeLessThan(0.999);
    for (const value of await keySimilarity(decoder, ids, { budget: 400, block: 256 })) {
      expect(value).toBeCloseTo(1, 6);
    }
    const policy = epiCache({ budget: 20, patch: [9], similarity });
    const cache = decoder.createPagedCache({ policy });
    decoder.forward(ids, { cache });
    expect(new Set(cache.keys).size).toBeGreaterThan(1);
    expect(cache.keys.reduce((a, b) => a + b, 0)).toBeLessThanOrEqual(20 * similarity.length);
    cache.dispose();
  });
});

describe('episodes', () => {
  it('finds groups that are far apart, and the member nearest to each center', () => {
    const noise = gaussian(12 * 5, 3, 0.1);
    const axes = [0, 2, 4, 0, 2, 4, 0, 2, 4, 0, 2, 4];
    const vectors = axes.map((axis, i) =>
      Array.from({ length: 5 }, (_, c) => (c === axis ? 3 : 0) + (noise[i * 5 + c] as number)),
    );
    const { labels, medoids, centers } = clusterEpisodes(vectors, 3, 7);
    expect(labels).toEqual(axes.map((axis) => labels[axes.indexOf(axis)]));
    expect(new Set(labels).size).toBe(3);
    const length = (x: readonly number[]) => Math.hypot(...x);
    for (const [c, medoid] of medoids.entries()) {
      expect(labels[medoid]).toBe(c);
      const similarity = (j: number) => {
        const x = vectors[j] as number[];
        const center = [...(centers[c] as Float64Array)];
        const dot = x.reduce((sum, value, i) => sum + value * (center[i] as number), 0);
        return dot / length(x) / length(center);
      };
      const members = [...vectors.keys()].filter((j) => labels[j] === c);
      expect(similarity(medoid)).toBeCloseTo(Math.max(...members.map(similarity)), 12);
    }
    expect(clusterEpisodes(vectors, 3, 7)).toEqual({ labels, medoids, centers });
    const same = clusterEpisodes([vectors[0] as number[], vectors[0] as number[]], 5);
    expect(same.labels).toEqual([0, 0]);
    expectError(
      () =>
        clusterEpisodes(
          [
            [1, 2],
            [3, Number.NaN],
          ],
          2,
        ),
      'BL_OUT_OF_RANGE',
      'clusterEpisodes: vectors[1] has a number that is not finite',
    );
    expectError(
      () => clusterEpisodes([], 2),
      'BL_INVALID_ARGUMENT',
      'clusterEpisodes: vectors is empty, expected at least one',
    );
  });

  it('a cache for each episode, chosen by the question, none above its budget', async () => {
    const encode = (text: string) => decoder.tokenizer?.encode(text, { addBos: false }) ?? [];
    const turns = [
      'The dog ran to the river and swam. ',
      'The cake was in the oven with sugar and eggs. ',
      'The dog swam back from the river. ',
      'The cake had honey, sugar and butter. ',
    ].map(encode);
    const axis = (tokens: readonly number[]) =>
      turns.flat().length > 0 && decoder.tokenizer?.decode([...tokens]).includes('cake')
        ? [1, 0]
        : [0, 1];
    const options = { budget: 16, block: 16, episodes: 2, format: 'i8', embed: axis } as const;
    const memory = await EpisodicCache.create(decoder, turns, options);
    expect(memory.caches.length).toBe(2);
    expect(memory.nearest(encode('the cake'))).toBe(memory.episodes.labels[1]);
    expect(memory.nearest(encode('the dog'))).toBe(memory.episodes.labels[0]);
    const cake = memory.match(encode('the cake'));
    const dog = memory.match(encode('the dog'));
    expect(cake).not.toBe(dog);
    for (const cache of memory.caches) {
      expect(Math.max(...cache.keys)).toBeLessThanOrEqual(16);
      expect(cache.length).toBe(turns.flat().length + 1);
      const probe = cache.probeTokens;
      expect(cache.peakKeys).toBeLessThanOrEqual((16 + 16 + probe) * cache.numLayers);
    }
    const places = [cake, dog].map((cache) => [...(cache.read(3).positions[0] as Int32Array)]);
    expect(places[0]).not.toEqual(places[1]);
    const answer = decoder.generate(encode('The cake was'), { cache: cake, maxTokens: 4 });
    await answer.text();
    expect(answer.tokens.length).toBeGreaterThan(0);
    memory.dispose();
    expect(cake.disposed).toBe(true);
    expect(meanEmbedding(decoder, [5, 5])).toEqual(meanEmbedding(decoder, [5]));
  });
});
