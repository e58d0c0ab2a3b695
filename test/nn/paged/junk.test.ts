// Arguments of no sense at all, for caches and what is fitted for them: the library's own errors, and the cache goes on as before.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Tensor } from '../../../lib/index.js';
import * as nn from '../../../lib/nn/index.js';
import { tinyModel } from '../models.js';

const junk: readonly [string, unknown][] = [
  ['null', null],
  ['3.5', 3.5],
  ['-1', -1],
  ['NaN', Number.NaN],
  ['2^60', 2 ** 60],
  ['a string', 'x'],
  ['true', true],
  ['an object', {}],
  ['an object without a prototype', Object.create(null)],
  ['a list of strings', ['a']],
  ['a list of null', [null]],
  ['a list of symbols', [Symbol('x')]],
  ['a list-like object that is too long', { length: 2 ** 40 }],
  ['a function', () => 1],
  ['a symbol', Symbol('x')],
  ['a bigint', 10n],
  ['what inherits from Tensor', Object.create(Tensor.prototype)],
];

let decoder: nn.Decoder;
beforeAll(async () => {
  decoder = await nn.load(tinyModel, { activations: 'f32' });
});
afterAll(() => decoder.dispose());

/** Runs or fails with an error of the library. */
async function own(body: () => unknown): Promise<void> {
  try {
    await body();
  } catch (error) {
    expect(String((error as { code?: unknown }).code), String(error)).toMatch(/^BL_/);
    return;
  }
}

const tokens = (n: number) => Tensor.zeros('f32', [n, 2, 8]);
const shape = { numLayers: 1, numKvHeads: 2, headDim: 8, pageSize: 8, numPages: 20 } as const;

type Body = (cache: nn.PagedKVCache, s: nn.PagedKVSequence, x: never) => unknown;
const methods: Record<string, Body> = {
  match: (cache, _, x) => cache.match(x),
  'batch of': (cache, _, x) => cache.batch(x),
  'batch counts': (cache, s, x) => cache.batch([s], x),
  'batch count': (cache, s, x) => cache.batch([s], [x]),
  segments: (_, s, x) => s.segments(x),
  'gather layer': (_, s, x) => s.gather(x),
  'gather begin': (_, s, x) => s.gather(0, x),
  'gather end': (_, s, x) => s.gather(0, 0, x),
  'append layer': (_, s, x) => s.append(x, tokens(1), tokens(1)),
  register: (_, s, x) => s.register(x),
  'registerChunk begin': (_, s, x) => s.registerChunk(x, [1, 2, 3]),
  'registerChunk tokens': (_, s, x) => s.registerChunk(0, x),
  'registerChunk position': (_, s, x) => s.registerChunk(0, [1, 2, 3, 4, 5, 6, 7, 8], x),
  appendChunk: (_, s, x) => s.appendChunk(x),
};

it.each(junk)('caches: %s', async (_, x) => {
  for (const [name, body] of Object.entries(methods)) {
    const cache = new nn.PagedKVCache(shape);
    const sequence = cache.create();
    sequence.append(0, tokens(20), tokens(20));
    await own(() => body(cache, sequence, x as never));
    sequence.abort();
    expect(sequence.gather(0).k.shape, name).toEqual([20, 2, 8]);
    cache.dispose();
  }
  for (const name of [
    ...Object.keys(shape),
    'valueDim',
    'format',
    'recent',
    'rope',
    'isa',
    'evict',
  ]) {
    await own(() => new nn.PagedKVCache({ ...shape, [name]: x }).dispose());
  }
  for (const name of [
    'format',
    'recent',
    'pageSize',
    'policy',
    'capacity',
    'compute',
    'keyMeans',
  ]) {
    await own(() => decoder.createPagedCache({ [name]: x }).dispose());
  }
});

it.each(junk)('what is fitted and measured: %s', async (_, x) => {
  const any = x as never;
  const many = { keys: any, values: any, queries: any };
  const factors = Array(decoder.config.numLayers).fill({ keys: { down: any, up: any } });
  const bodies: (() => unknown)[] = [
    () => decoder.createLowRankCache({ factors: any }),
    () => decoder.createLowRankCache({ factors }),
    () => decoder.generate('a', { cache: any, maxTokens: 1 }).text(),
    () => decoder.generate('a', { cache: { policy: any }, maxTokens: 1 }).text(),
    () => nn.perplexity(decoder, 'hello there', { cache: any }),
    () => nn.fitLowRank(any, { keyRank: 1 }),
    () => nn.fitLowRank(many, { keyRank: 1 }),
    () => nn.fitChannelOrder(any, any),
    () => nn.fitChannelOrder(many, decoder.config.rope),
    () => nn.fitKeyMean(many, decoder.config.rope),
    () => nn.cacheSamples(decoder, any),
    () => nn.retrievalHeads(decoder, any, { needle: [0, 1], answer: [1, 2] }),
    () => nn.keySimilarity(decoder, any, { budget: 4 }),
    () => nn.clusterEpisodes(any, 2),
    () => nn.clusterEpisodes([any], 2),
    () => nn.meanEmbedding(decoder, any),
    () => nn.EpisodicCache.create(decoder, [any], { budget: 40 }),
    () => nn.EpisodicCache.create(decoder, [[1, 2, 3]], { budget: 40, embed: any }),
    () => nn.snapKV({ budget: any }),
    () => nn.d2o({ budget: any }),
    () => nn.citrus({ budget: any, instruction: [1] }),
    () => nn.citrus({ budget: 8, instruction: any }),
    () => nn.compressKV({ budget: 8, errors: any, heads: any }),
  ];
  for (const body of bodies) await own(body);
});
