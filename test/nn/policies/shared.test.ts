// One policy object, several caches: what it remembers of one text must not decide about another.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type CachePolicy, type Decoder, load } from '../../../lib/nn/index.js';
import { tinyModel } from '../models.js';
import { policies } from './all.js';
import { nested } from './drive.js';

let decoder: Decoder;
beforeAll(async () => {
  decoder = await load(tinyModel, { activations: 'f32' });
});
afterAll(() => decoder.dispose());

/** Texts that are unlike one another, in the same vocabulary. */
const text = (factor: number): number[] => nested(160, (i) => ((i * factor) % 900) + 5);

/** Positions that stay of each text, [texts][layers][kv heads]; the texts grow in turns. */
function kept(ofText: (i: number) => CachePolicy): number[][][][] {
  const texts = [text(37), text(91)];
  const caches = texts.map((_, i) =>
    decoder.createPagedCache({ format: 'f32', policy: ofText(i) }),
  );
  for (let begin = 0; begin < 160; begin += 40) {
    for (const [i, tokens] of texts.entries()) {
      decoder.forward(tokens.slice(begin, begin + 40), { cache: caches[i] as never });
    }
  }
  const result = caches.map((cache) =>
    nested(decoder.config.numLayers, (layer) =>
      cache.read(layer).positions.map((list) => [...list]),
    ),
  );
  for (const cache of caches) cache.dispose();
  return result;
}

it.each(Object.entries(policies))('%s', (_, make) => {
  const shared = make(40);
  expect(kept(() => shared)).toEqual(kept(() => make(40)));
});
