import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Tokenizer } from '../../../lib/io/index.js';
import { load, MoELayer, perplexity } from '../../../lib/nn/index.js';
import { examples } from '../models.js';

describe('examples/tiny-moe.gguf', () => {
  it('has learned what held-out stories are like, uses all experts, and speaks', async () => {
    const decoder = await load(join(examples, 'tiny-moe.gguf'));
    expect(decoder.config.moe).toMatchObject({ numExperts: 8, expertSize: 96 });
    const text = readFileSync(join(examples, 'train-tiny/heldout.txt'), 'utf8').slice(0, 2500);
    const { perplexity: found } = await perplexity(decoder, text);
    expect(found).toBeLessThan(2.8);
    decoder.forward((decoder.tokenizer as Tokenizer).encode(text).slice(0, 128));
    for (const { mlp } of decoder.parts.layers) {
      const used = new Set((mlp as MoELayer).lastRoutes?.indices.toArray());
      expect(mlp).toBeInstanceOf(MoELayer);
      expect(used.size).toBe(8);
    }
    const said = await decoder.generate('Once upon a time', { maxTokens: 40 }).text();
    expect(said).toMatch(/^, there (was|lived) a [a-z]+ [a-z]+ named [A-Z][a-z]+\. /);
    decoder.dispose();
  });
});
