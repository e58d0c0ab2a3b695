// The whole path against oracles that share no code with bitloom: the text that the publisher's program prints for
// stories260K, and torch's logits and tokens for the project's own model.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Decoder, load } from '../../lib/nn/index.js';
import { hasStories260k, SHARED, stories260kGGUF } from '../models/stories260k.js';
import { examples, tinyModel } from './models.js';

/** The text behind `./run ... -t 0.0` in the publisher's description. */
function publishedText(): string {
  const page = readFileSync(join(SHARED, 'models/stories260K.md'), 'utf8');
  const begin = page.indexOf('-t 0.0\n') + '-t 0.0\n'.length;
  return page.slice(begin, page.indexOf('\n```', begin));
}

describe.skipIf(!hasStories260k)('stories260K (needs ../shared/models)', () => {
  let decoder: Decoder;
  beforeAll(async () => {
    decoder = await load(stories260kGGUF());
  });
  afterAll(() => decoder.dispose());

  it('greedy text equals what the publisher prints', async () => {
    const generation = decoder.generate('', { maxTokens: 256 });
    expect(await generation.text()).toBe(publishedText());
    expect(generation.promptTokens).toEqual([1]);
    expect([generation.tokens.length, generation.finishReason]).toEqual([256, 'length']);
  });

  it('greedy text equals it with the weights in f16, whatever is asked of activations', async () => {
    const f16 = await load(stories260kGGUF(), { format: 'f16', activations: 'i8' });
    expect(await f16.generate('', { maxTokens: 256 }).text()).toBe(publishedText());
    f16.dispose();
  });
});

interface Expected {
  prompt: string;
  prompt_tokens: number[];
  tokens: number[];
  text: string;
  smallest_gap: number;
  logits_first: number[];
}

describe('examples/tiny.gguf', () => {
  const cases: Expected[] = JSON.parse(
    readFileSync(join(examples, 'train-tiny/expected.json'), 'utf8'),
  );

  it.each(cases)('"$prompt": tokens, text and logits as torch gives them', async (expected) => {
    const decoder = await load(tinyModel, { activations: 'f32' });
    const ids = decoder.tokenizer?.encode(expected.prompt) ?? [];
    expect(ids).toEqual(expected.prompt_tokens);
    const logits = decoder.forward(ids).data;
    const worst = Math.max(
      ...expected.logits_first.map((value, i) => Math.abs(value - (logits[i] as number))),
    );
    // Both sides compute in f32 with sums of up to 512 products in different orders; logits reach 20.
    expect(worst).toBeLessThan(2e-4);
    const generation = decoder.generate(expected.prompt, {
      maxTokens: expected.tokens.length,
      stopTokens: [],
    });
    expect(await generation.text()).toBe(expected.text);
    expect(generation.tokens).toEqual(expected.tokens);
    decoder.dispose();
  });
});
