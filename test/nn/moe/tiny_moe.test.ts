// The example model, trained on a book by examples/train-moe: real text through routers, experts and generation.
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RouterLoad, Tensor } from '../../../lib/index.js';
import { mapFile, readGGUF, type Tokenizer } from '../../../lib/io/index.js';
import { type Decoder, load, MoELayer, perplexity } from '../../../lib/nn/index.js';
import { aliceChapters, examples, tinyMoEModel } from '../models.js';

const { trainTokenizer } = await import(join(examples, 'train-moe/tokenizer.mjs'));
const chapters = aliceChapters();
const heldOut = chapters.at(-1) as string;
const trained = chapters.slice(0, -1).join('\n\n');
const wordsOf = (text: string) => text.toLowerCase().match(/[a-z]+/g) ?? [];

describe('examples/tiny-moe.gguf', () => {
  let decoder: Decoder;
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    decoder = await load(tinyMoEModel);
    tokenizer = decoder.tokenizer as Tokenizer;
  });
  afterAll(() => decoder.dispose());

  it('is small, and has the tokenizer that the book gives', () => {
    expect(statSync(tinyMoEModel).size).toBeLessThan(2e6);
    expect(statSync(join(examples, 'train-moe/alice.txt')).size).toBeLessThan(2e5);
    expect(decoder.config.moe).toMatchObject({ numExperts: 8, expertSize: 96 });
    const { metadata } = readGGUF(mapFile(tinyMoEModel));
    const own = trainTokenizer(trained, decoder.config.vocabSize).metadata;
    for (const [key, value] of Object.entries(own)) {
      const stored = metadata.get(key) as unknown;
      expect(ArrayBuffer.isView(stored) ? Array.from(stored as never) : stored, key).toEqual(value);
    }
    expect(tokenizer.decode(tokenizer.encode(heldOut))).toBe(heldOut);
  });

  it('has learned from the chapters before what the last one is like', async () => {
    // What the frequencies of tokens alone know of it, each counted once more.
    const ids = tokenizer.encode(trained);
    const counts = new Array<number>(decoder.config.vocabSize).fill(1);
    for (const id of ids) counts[id] = (counts[id] as number) + 1;
    const text = heldOut.slice(0, 2500); // as much as level scalar has time for
    const last = tokenizer.encode(text);
    const total = ids.length + counts.length;
    const byFrequency =
      last.reduce((sum, id) => sum - Math.log((counts[id] as number) / total), 0) / last.length;
    const { loss } = await perplexity(decoder, text);
    expect(loss).toBeLessThan(byFrequency - 1.3);
    expect(loss).toBeLessThan(5); // 3.3 characters a token
    const known = await perplexity(decoder, (chapters[3] as string).slice(0, 1500));
    expect(known.loss).toBeLessThan(loss - 0.5);
  });

  it('routes real tokens to all experts, alike in number and by what they are', () => {
    const loads = decoder.parts.layers.map(() => new RouterLoad(8));
    const byToken = new Map<number, number[]>();
    const ids = tokenizer.encode(heldOut).slice(0, 1536);
    for (let first = 0; first + 128 <= ids.length; first += 128) {
      const part = ids.slice(first, first + 128);
      decoder.forward(part);
      for (const [i, { mlp }] of decoder.parts.layers.entries()) {
        if (!(mlp instanceof MoELayer) || mlp.lastRoutes === undefined)
          throw new Error('no routes');
        const { indices } = mlp.lastRoutes;
        loads[i]?.add(mlp.lastRoutes, Tensor.zeros('f32', [128, 8]));
        if (i > 0) continue;
        for (const [t, id] of part.entries()) {
          const seen = byToken.get(id) ?? new Array<number>(8).fill(0);
          for (const e of indices.data.slice(2 * t, 2 * t + 2)) seen[e] = (seen[e] as number) + 1;
          byToken.set(id, seen);
        }
      }
    }
    for (const one of loads) {
      const { counts, maxLoad } = one.statistics();
      expect(counts.every((count) => count > 0)).toBe(true);
      expect(maxLoad).toBeLessThan(3);
    }
    // The first layer sends the same token to the same experts, mostly: by chance two of eight had 0.25 to 0.4.
    const common = [...byToken.values()].filter((seen) => seen.reduce((a, b) => a + b) >= 30);
    expect(common.length).toBeGreaterThan(5);
    const parts = common.map((seen) => {
      const [a = 0, b = 0] = [...seen].sort((x, y) => y - x);
      return (a + b) / seen.reduce((x, y) => x + y);
    });
    expect(parts.reduce((a, b) => a + b) / parts.length).toBeGreaterThan(0.6);
  });

  it.each([undefined, 'u4_g32'] as const)(
    'speaks in words of the book, weights in %s',
    async (format) => {
      const model = await load(tinyMoEModel, format === undefined ? {} : { format });
      const words = new Set(wordsOf(readFileSync(join(examples, 'train-moe/alice.txt'), 'utf8')));
      const options = { maxTokens: 60, temperature: 0.6, topK: 20 };
      const said: string[] = [];
      for (const [seed, prompt] of [
        'Alice was beginning to',
        'The Queen said',
        'It was',
      ].entries()) {
        for (let turn = 0; turn < 4; turn++) {
          const text = await model.generate(prompt, { ...options, seed: 10 * seed + turn }).text();
          said.push(...wordsOf(text).slice(0, -1)); // the last one may be cut
        }
      }
      expect(said.length).toBeGreaterThan(300);
      expect(new Set(said).size).toBeGreaterThan(100);
      expect(said.filter((word) => words.has(word)).length / said.length).toBeGreaterThan(0.95);
      model.dispose();
    },
  );
});
