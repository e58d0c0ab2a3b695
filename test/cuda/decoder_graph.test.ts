// A decoder's step of one token as a graph: the same bits as by its operators, whatever happens to caches in between.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { operators } from '../../lib/generated.js';
import { native } from '../../lib/native.js';
import { type Decoder, type KVCache, load } from '../../lib/nn/index.js';
import { tinyModel } from '../nn/models.js';

const cuda = 'cuda:0';
const code = (value: string) => expect.objectContaining({ code: value });

/** How often `body` called the addon: operators, uploads, launches of graphs, recordings. */
async function calls(body: () => unknown) {
  const counts = { operators: 0, uploads: 0, launches: 0, recordings: 0 };
  const kinds = new Map<string, keyof typeof counts>([
    ...Object.keys(operators).map((name) => [name, 'operators'] as const),
    ['deviceUpload', 'uploads'],
    ['graphLaunch', 'launches'],
    ['graphEnd', 'recordings'],
  ]);
  const table = native as unknown as Record<string, (...values: unknown[]) => unknown>;
  const originals = new Map<string, (...values: unknown[]) => unknown>();
  for (const [name, kind] of kinds) {
    const original = table[name] as (...values: unknown[]) => unknown;
    originals.set(name, original);
    table[name] = (...values) => {
      counts[kind]++;
      return original(...values);
    };
  }
  try {
    await body();
  } finally {
    for (const [name, original] of originals) table[name] = original;
  }
  return counts;
}

describe('a step of one token on a device', () => {
  let graphs: Decoder;
  let plain: Decoder;
  beforeAll(async () => {
    graphs = await load(tinyModel, { device: cuda });
    plain = await load(tinyModel, { device: cuda, graphs: false });
  });
  afterAll(() => {
    graphs.dispose();
    plain.dispose();
  });

  /** Logits after `prompt` and each of `tokens`, one by one. */
  const steps = (decoder: Decoder, cache: KVCache, tokens: readonly number[]): number[][] =>
    tokens.map((token) => decoder.forward([token], { cache }).toArray());
  const prompt = [1, 100, 200, 300];
  const tokens = [4, 5, 6, 7, 8];

  it.each(['f32', 'f16'] as const)('is recorded, with the same bits (%s)', async (dtype) => {
    const [cache, other] = [graphs, plain].map((d) => d.createCache({ capacity: 16, dtype }));
    graphs.forward(prompt, { cache: cache as KVCache });
    plain.forward(prompt, { cache: other as KVCache });
    const actual = steps(graphs, cache as KVCache, tokens);
    expect(actual).toEqual(steps(plain, other as KVCache, tokens));
    expect(new Set(actual.map(String)).size).toBe(tokens.length);
    for (const layer of [0, 1]) {
      for (const name of ['keys', 'values'] as const) {
        const rows = (c: KVCache | undefined) =>
          (c as KVCache).layer(layer)[name].slice(0, 9).toSync('cpu').toArray();
        expect(rows(cache)).toEqual(rows(other));
      }
    }
    cache?.dispose();
    other?.dispose();
  });

  it('is one upload and one launch, from its third time on', async () => {
    const cache = graphs.createCache({ capacity: 8 });
    const step = () => calls(() => graphs.forward([7], { cache }));
    const first = await step();
    expect(first).toMatchObject({ uploads: 1, launches: 0, recordings: 0 });
    expect(first.operators).toBeGreaterThan(10 * graphs.parts.layers.length);
    expect(await step()).toEqual({ ...first, launches: 1, recordings: 1 });
    for (let i = 0; i < 3; i++) {
      expect(await step()).toEqual({ operators: 0, uploads: 1, launches: 1, recordings: 0 });
    }
    expect(await calls(() => graphs.forwardAsync([7], { cache }))).toEqual({
      operators: 0,
      uploads: 1,
      launches: 1,
      recordings: 0,
    });
    expect(cache.length).toBe(6);
    cache.dispose();
    const other = plain.createCache({ capacity: 8 });
    for (let i = 0; i < 3; i++) {
      const { launches } = await calls(() => plain.forward([7], { cache: other }));
      expect(launches).toBe(0);
    }
    other.dispose();
  });

  it('follows a cache that is rewound, and goes on after steps of several tokens', () => {
    const cache = graphs.createCache({ capacity: 16 });
    graphs.forward(prompt, { cache });
    const before = steps(graphs, cache, tokens);
    cache.rewind(prompt.length);
    expect(steps(graphs, cache, tokens)).toEqual(before);
    graphs.forward([9, 10], { cache });
    const other = plain.createCache({ capacity: 16 });
    plain.forward(prompt, { cache: other });
    steps(plain, other, tokens);
    plain.forward([9, 10], { cache: other });
    expect(steps(graphs, cache, [11, 12])).toEqual(steps(plain, other, [11, 12]));
    cache.dispose();
    other.dispose();
  });

  it('of several caches in turn, sync and async at once', async () => {
    const caches = [0, 1].map(() => graphs.createCache({ capacity: 12 }));
    const other = plain.createCache({ capacity: 12 });
    const texts = [tokens, [20, 30, 40, 50, 60]];
    const results: number[][][] = [[], []];
    for (let i = 0; i < tokens.length; i++) {
      const pending = caches.map((cache, c) =>
        graphs.forwardAsync([texts[c]?.[i] as number], { cache }),
      );
      for (const [c, result] of (await Promise.all(pending)).entries()) {
        results[c]?.push(result.toArray());
      }
    }
    for (const [c, text] of texts.entries()) {
      other.rewind(0);
      expect(results[c]).toEqual(steps(plain, other, text));
    }
    for (const cache of [...caches, other]) cache.dispose();
  });

  it('of a cache that decoders share is each one’s own', () => {
    const cache = graphs.createCache({ capacity: 16 });
    const other = plain.createCache({ capacity: 16 });
    const expected = steps(plain, other, [1, 2, 3, 4, 5, 6]);
    const mine = steps(graphs, cache, [1, 2, 3]);
    expect([...mine, ...steps(plain, cache, [4]), ...steps(graphs, cache, [5, 6])]).toEqual(
      expected,
    );
    cache.dispose();
    other.dispose();
  });

  it('speaks the same text for long', async () => {
    const options = { maxTokens: 40 };
    const expected = await plain.generate('Once upon a time', options).text();
    expect(await graphs.generate('Once upon a time', options).text()).toBe(expected);
  });

  it('refuses what it refused, and lives on', async () => {
    const cache = graphs.createCache({ capacity: 4 });
    steps(graphs, cache, [1, 2, 3]);
    const aborted = AbortSignal.abort();
    await expect(graphs.forwardAsync([4], { cache, signal: aborted })).rejects.toThrow(/abort/i);
    expect(cache.length).toBe(3);
    expect(() => graphs.forward([graphs.config.vocabSize], { cache })).toThrow(
      code('BL_OUT_OF_RANGE'),
    );
    const [last] = steps(graphs, cache, [4]);
    expect(() => graphs.forward([5], { cache })).toThrow(code('BL_OUT_OF_RANGE'));
    cache.rewind(3);
    expect(steps(graphs, cache, [4])).toEqual([last]);
    cache.dispose();
    expect(() => graphs.forward([4], { cache })).toThrow(/^Decoder: cache/);
  });

  it('gives its scratch memory back with the cache or the decoder', async () => {
    const decoder = await load(tinyModel, { device: cuda });
    const caches = [0, 1].map(() => decoder.createCache({ capacity: 8 }));
    for (const cache of caches) steps(decoder, cache, [1, 2, 3]);
    const freed = async (body: () => void) => {
      let count = 0;
      const { graphFree } = native;
      native.graphFree = (graph) => {
        count++;
        graphFree(graph);
      };
      body();
      native.graphFree = graphFree;
      return count;
    };
    expect(await freed(() => caches[0]?.dispose())).toBe(1);
    expect(await freed(() => decoder.dispose())).toBe(1);
    expect(await freed(() => caches[1]?.dispose())).toBe(0);
    expect(() => decoder.forward([1])).toThrow(code('BL_DETACHED'));
  });

  it('of weights that copy a table to the device is recorded too', async () => {
    const format = 'nf4_g32';
    const [recorded, reference] = [
      await load(tinyModel, { device: cuda, format }),
      await load(tinyModel, { device: cuda, format, graphs: false }),
    ];
    const cache = recorded.createCache({ capacity: 8 });
    const other = reference.createCache({ capacity: 8 });
    expect(steps(recorded, cache, [1, 2, 3, 4])).toEqual(steps(reference, other, [1, 2, 3, 4]));
    const last = await recorded.forwardAsync([5], { cache });
    expect(last.toArray()).toEqual(reference.forward([5], { cache: other }).toArray());
    const sixth = await calls(() => recorded.forward([6], { cache }));
    expect(sixth).toMatchObject({ operators: 0, launches: 1 });
    for (const it of [cache, other, recorded, reference]) it.dispose();
  });
});
