import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Decoder, load } from '../../lib/nn/index.js';
import { StopText } from '../../lib/nn/stop_text.js';
import { tinyModel } from './models.js';

const code = (value: string) => expect.objectContaining({ code: value });
const prompt = 'Once upon a time';

describe('generate', () => {
  let decoder: Decoder;
  let greedy: string;
  beforeAll(async () => {
    decoder = await load(tinyModel);
    greedy = await decoder.generate(prompt, { maxTokens: 40 }).text();
  });
  afterAll(() => decoder.dispose());

  it('gives pieces that make up the decoded tokens, and statistics', async () => {
    const generation = decoder.generate(prompt, { maxTokens: 40 });
    const pieces: string[] = [];
    for await (const piece of generation) pieces.push(piece);
    expect(pieces.length).toBeGreaterThan(20);
    expect(pieces.join('')).toBe(greedy);
    expect(prompt + greedy).toBe(
      decoder.tokenizer?.decode([...generation.promptTokens, ...generation.tokens]),
    );
    const { stats } = generation;
    expect(stats).toMatchObject({ promptTokens: 5, tokens: 40, steps: 39 });
    expect(stats.tokensPerSecond).toBeGreaterThan(0);
    expect(stats.promptTokensPerSecond).toBeGreaterThan(0);
    expect(generation.finishReason).toBe('length');
  });

  it('the same seed gives the same text, another one another', async () => {
    const text = (seed: number) =>
      decoder
        .generate(prompt, { maxTokens: 30, temperature: 1, topP: 0.95, topK: 100, seed })
        .text();
    const first = await text(1);
    expect(await text(1)).toBe(first);
    expect(await text(2)).not.toBe(first);
  });

  it('two generations at once do not disturb each other', async () => {
    const texts = await Promise.all(
      [1, 2].map(() => decoder.generate(prompt, { maxTokens: 40 }).text()),
    );
    expect(texts).toEqual([greedy, greedy]);
  });

  it('a repetition penalty changes what follows', async () => {
    const options = { maxTokens: 100, repetitionPenalty: 1.5 };
    const penalized = decoder.generate(prompt, options);
    await penalized.text();
    const plain = decoder.generate(prompt, { maxTokens: 100 });
    await plain.text();
    const distinct = (tokens: readonly number[]) => new Set(tokens).size / tokens.length;
    expect(distinct(penalized.tokens)).toBeGreaterThan(distinct(plain.tokens));
  });

  it('stops at a text, which may lie across tokens', async () => {
    const stop = greedy.slice(30, 45);
    const generation = decoder.generate(prompt, { maxTokens: 40, stop });
    expect(await generation.text()).toBe(greedy.slice(0, greedy.indexOf(stop)));
    expect(generation.finishReason).toBe('stop');
  });

  it('stops at a token, which is no part of the text', async () => {
    const all = decoder.generate(prompt, { maxTokens: 40 });
    await all.text();
    const at = all.tokens[7] as number;
    const generation = decoder.generate(prompt, { maxTokens: 40, stopTokens: [at] });
    await generation.text();
    expect(generation.tokens).toEqual(all.tokens.slice(0, all.tokens.indexOf(at)));
    expect(generation.finishReason).toBe('stop');
  });

  it('ends where the context ends', async () => {
    const small = await load(tinyModel, { contextLength: 12 });
    const generation = small.generate(prompt, { stopTokens: [] });
    await generation.text();
    // 5 tokens of the prompt, 7 that fit behind them, and the one that the last logits name.
    expect(generation.tokens).toHaveLength(8);
    expect(generation.finishReason).toBe('context');
    expect(() => small.generate('Once upon a time there was a little dog and a cat')).toThrow(
      /generate: prompt has \d+ tokens, expected at most 12/,
    );
    small.dispose();
  });

  it('continues in a cache of the caller', async () => {
    const cache = decoder.createCache();
    const first = decoder.generate(prompt, { maxTokens: 10, cache });
    const text = await first.text();
    // The last token has not been through the network yet.
    expect(cache.length).toBe(first.promptTokens.length + 9);
    const second = decoder.generate([first.tokens[9] as number], { maxTokens: 30, cache });
    expect(text + (await second.text())).toBe(greedy);
    cache.dispose();
  });

  it('maxTokens 0 computes nothing', async () => {
    const generation = decoder.generate(prompt, { maxTokens: 0 });
    expect(await generation.text()).toBe('');
    expect(generation.stats.tokens).toBe(0);
  });

  it('ends with the reason of a signal', async () => {
    const controller = new AbortController();
    const generation = decoder.generate(prompt, { signal: controller.signal });
    const run = async () => {
      for await (const _ of generation) {
        if (generation.tokens.length === 3) controller.abort(new Error('enough'));
      }
    };
    await expect(run()).rejects.toThrow('enough');
    expect(generation.tokens.length).toBeLessThan(6);
  });

  it('can be left early, and iterated once', async () => {
    const generation = decoder.generate(prompt);
    for await (const piece of generation) {
      expect(piece).toBeTypeOf('string');
      break;
    }
    await expect(generation.text()).rejects.toMatchObject({ code: 'BL_INVALID_ARGUMENT' });
  });

  it('refuses prompts and options that can not be', async () => {
    expect(() => decoder.generate('a\ud800b')).toThrow('lone surrogate');
    expect(() => decoder.generate([])).toThrow('generate: prompt has no tokens');
    expect(() => decoder.generate(prompt, { maxTokens: -1 })).toThrow(code('BL_OUT_OF_RANGE'));
    expect(() => decoder.generate(prompt, { stop: [''] })).toThrow(code('BL_INVALID_ARGUMENT'));
    const bad: Parameters<Decoder['generate']>[1][] = [
      { temperature: -1 },
      { topP: 2 },
      { topK: -1 },
      { minP: 1 },
      { repetitionPenalty: -1 },
      { seed: -1 },
    ];
    for (const options of bad) {
      await expect(decoder.generate(prompt, { maxTokens: 1, ...options }).text()).rejects.toThrow();
    }
    await expect(decoder.generate([9999], { maxTokens: 1 }).text()).rejects.toMatchObject({
      code: 'BL_OUT_OF_RANGE',
    });
  });
});

describe('StopText', () => {
  it('passes all before the first stop, however the text is cut', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 12 });
    const stops = fc.array(
      fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 4 }),
    );
    fc.assert(
      fc.property(fc.array(letters), stops, (pieces, list) => {
        const filter = new StopText(list);
        const passed = pieces.map((piece) => filter.push(piece)).join('') + filter.end();
        const all = pieces.join('');
        const ends = list.map((stop) => all.indexOf(stop)).filter((at) => at >= 0);
        // Of overlapping stops the one that is complete first counts; it begins at the minimum or later.
        const firstEnd = Math.min(
          ...list
            .map((stop) => all.indexOf(stop) + stop.length)
            .filter((_, i) => all.includes(list[i] as string)),
        );
        expect(filter.found).toBe(ends.length > 0);
        if (ends.length === 0) expect(passed).toBe(all);
        else {
          expect(all.startsWith(passed)).toBe(true);
          expect(passed.length).toBeGreaterThanOrEqual(Math.min(...ends));
          expect(passed.length).toBeLessThan(firstEnd);
          for (const stop of list) expect(passed.includes(stop)).toBe(false);
        }
      }),
    );
  });
});
