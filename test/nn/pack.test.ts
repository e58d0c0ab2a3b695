// Models packed in place as they load.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { load } from '../../lib/nn/index.js';
import { tinyModel } from './models.js';

async function greedy(...from: Parameters<typeof load>): Promise<number[]> {
  const decoder = await load(...from);
  const generation = decoder.generate('In the small house', { maxTokens: 40 });
  await generation.text();
  decoder.dispose();
  return [...generation.tokens];
}

describe('load', () => {
  it('gives the same tokens packed and not, and leaves the file and the caller`s bytes as they are', async () => {
    const before = readFileSync(tinyModel);
    const plain = await greedy(tinyModel, { pack: false });
    expect(plain).toHaveLength(40);
    expect(await greedy(tinyModel)).toEqual(plain);
    expect(await greedy(tinyModel, { pack: true, threads: 1 })).toEqual(plain);
    expect(Buffer.compare(readFileSync(tinyModel), before)).toBe(0);
    const own = new Uint8Array(before);
    expect(await greedy(own)).toEqual(plain);
    expect(Buffer.compare(own, before)).toBe(0);
  });
});
