// A whole model on a device speaks as on the processor.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Decoder, load } from '../../lib/nn/index.js';
import { tinyModel } from '../nn/models.js';

describe('Decoder on a device', () => {
  let here: Decoder;
  let there: Decoder;
  beforeAll(async () => {
    here = await load(tinyModel, { activations: 'f32' });
    there = await here.to('cuda:0');
  });
  afterAll(() => {
    there.dispose();
    here.dispose();
  });

  it('has its weights and caches there', () => {
    expect([here.device, there.device]).toEqual(['cpu', 'cuda:0']);
    const cache = there.createCache({ capacity: 8 });
    expect(cache.layer(0).keys.device).toBe('cuda:0');
    cache.dispose();
  });

  it('gives the same logits, within the rounding of f16', () => {
    const tokens = [1, 100, 200, 300, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
    for (const part of [tokens, tokens.slice(0, 1)]) {
      const expected = here.forward(part).toArray();
      const actual = there.forward(part).toArray();
      const largest = Math.max(...expected.map(Math.abs));
      for (const [i, value] of expected.entries()) {
        expect(Math.abs((actual[i] as number) - value)).toBeLessThan(0.01 * largest);
      }
    }
  });

  it('speaks the same text', async () => {
    const options = { maxTokens: 16 };
    const expected = await here.generate('Once upon a time', options).text();
    expect(await there.generate('Once upon a time', options).text()).toBe(expected);
    expect(expected.length).toBeGreaterThan(20);
  });

  it('draws the same tokens from the same seed', async () => {
    const options = { maxTokens: 8, temperature: 0.8, topK: 40, seed: 7 };
    const expected = await here.generate('The little dog', options).text();
    expect(await there.generate('The little dog', options).text()).toBe(expected);
  });

  it('is loaded there in one call', async () => {
    const loaded = await load(tinyModel, { activations: 'f32', device: 'cuda:0' });
    expect(loaded.device).toBe('cuda:0');
    const tokens = [1, 100, 200];
    expect(loaded.forward(tokens).toArray()).toEqual(there.forward(tokens).toArray());
    expect(await loaded.generate('Once upon a time', { maxTokens: 4 }).text()).toBe(
      await there.generate('Once upon a time', { maxTokens: 4 }).text(),
    );
    loaded.dispose();
    const missing = load(tinyModel, { device: 'cuda:99' });
    await expect(missing).rejects.toThrow(expect.objectContaining({ code: 'BL_NOT_FOUND' }));
  });

  it('takes caches of its own device only', () => {
    const cache = here.createCache({ capacity: 8 });
    expect(() => there.forward([1], { cache })).toThrow(/is on cpu, expected cuda:0/);
    cache.dispose();
  });

  it('comes back', async () => {
    expect(await there.to('cuda:0')).toBe(there);
    const back = await there.to('cpu');
    expect(back.device).toBe('cpu');
    expect(back.forward([1, 2, 3]).toArray()).toEqual(here.forward([1, 2, 3]).toArray());
    back.dispose();
    expect(there.forward([1]).size).toBe(here.config.vocabSize);
  });
});
