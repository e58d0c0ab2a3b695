// A decoder whose mixtures are routed by one router over the embeddings (Read-ME), against its parts composed by hand.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  embedding,
  type MoERoutes,
  moeForward,
  preGate,
  quantize,
  Tensor,
} from '../../../lib/index.js';
import { ggufBytes } from '../../../lib/io/index.js';
import { type Decoder, ExpertCache, Linear, load, MoELayer } from '../../../lib/nn/index.js';
import { expectError } from '../../reference/op_checks.js';
import { gaussian } from '../../reference/random.js';
import { randomModel } from '../random_model.js';

const folder = mkdtempSync(join(tmpdir(), 'bitloom-pregate-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const [hidden, experts, layers] = [64, 6, 3];
const { content } = randomModel({ architecture: 'qwen3moe', experts, topK: 2, layers, hidden });
const bytes = ggufBytes(content);
const tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 49, 0];
/** A router of `rows` rows. */
const routerOf = (rows: number, seed = 5) =>
  new Linear(quantize(new Tensor('f32', gaussian(rows * hidden, seed), [rows, hidden]), 'f32'), {
    activations: 'f32',
  });
const mixtures = (decoder: Decoder) =>
  decoder.parts.layers.map(({ mlp }) => {
    if (!(mlp instanceof MoELayer)) throw new Error('no mixture');
    return mlp;
  });

/** Logits of all tokens, from the parts of the decoder and the operators. */
function byHand(decoder: Decoder, routesOf: (x: Tensor<'f32'>) => (layer: number) => MoERoutes) {
  const { parts } = decoder;
  const ids = new Tensor('i32', tokens, [tokens.length]);
  const positions = new Tensor('i32', [...tokens.keys()], [tokens.length]);
  let x = embedding(parts.embedding, ids);
  const routes = routesOf(x);
  const step = decoder.createCache().begin(tokens.length);
  for (const [i, layer] of parts.layers.entries()) {
    const attended = { cache: step.layer(i), start: 0, positions };
    x = layer.attention.forward(layer.attentionNorm.forward(x), attended, undefined, x);
    const mixture = mixtures(decoder)[i] as MoELayer;
    x = moeForward(layer.mlpNorm.forward(x), routes(i), mixture.experts, { residual: x });
  }
  return parts.output.forward(parts.norm.forward(x));
}

describe('preGate of a decoder', () => {
  it.each([
    ['the same routes for all layers', experts],
    ['routes of its own for each layer', experts * layers],
  ])('is the operators composed by hand: %s', async (_, rows) => {
    const router = routerOf(rows);
    const decoder = await load(bytes, { activations: 'f32', preGate: router });
    const { route } = (mixtures(decoder)[0] as MoELayer).options;
    const planOf = (x: Tensor<'f32'>) =>
      preGate(router.forward(x), { ...route, numLayers: layers, numExperts: experts });
    const expected = byHand(decoder, (x) => {
      const plan = planOf(x);
      return (layer) => plan.routes(layer);
    });
    const all = decoder.forward(tokens, { logits: 'all' });
    expect(all.toArray()).toEqual(expected.toArray());
    const ids = new Tensor('i32', tokens, [tokens.length]);
    const plan = planOf(embedding(decoder.parts.embedding, ids));
    for (const [i, mixture] of mixtures(decoder).entries()) {
      expect(mixture.lastRoutes?.indices.toArray()).toEqual(plan.routes(i).indices.toArray());
      expect(mixture.lastRoutes?.weights.toArray()).toEqual(plan.routes(i).weights.toArray());
    }
    const same =
      plan.routes(0).indices.toArray().join() === plan.routes(1).indices.toArray().join();
    expect(same).toBe(rows === experts);
    // Without it the layers route themselves, to other experts.
    const own = await load(bytes, { activations: 'f32' });
    expect(own.forward(tokens, { logits: 'all' }).toArray()).not.toEqual(expected.toArray());
    for (const one of [decoder, own]) one.dispose();
    expect(router.weight.disposed).toBe(true);
  });

  it('gives the same in steps, recorded or not, and on a worker thread', async () => {
    const decoder = await load(bytes, { activations: 'f32', preGate: routerOf(experts) });
    const plain = await load(bytes, {
      ...{ activations: 'f32', preGate: routerOf(experts), graphs: false },
    });
    const [cache, other] = [decoder.createCache(), plain.createCache()];
    for (const id of tokens) {
      const logits = decoder.forward([id], { cache });
      expect(plain.forward([id], { cache: other }).toArray()).toEqual(logits.toArray());
    }
    const last = await decoder.forwardAsync(tokens);
    expect(last.toArray()).toEqual(decoder.forward(tokens).toArray());
    for (const one of [decoder, plain]) one.dispose();
  });

  it('has all experts of a step in memory before it runs', async () => {
    const path = join(folder, 'model.gguf');
    writeFileSync(path, bytes);
    const missesOf = async (options: { preGate?: Linear }) => {
      const decoder = await load(path, {
        ...{ activations: 'f32', expertCache: { bytes: 1e7 }, ...options },
      });
      const cache = decoder.createCache();
      const logits = [];
      for (const id of tokens) logits.push(...(await decoder.forwardAsync([id], { cache })).data);
      const misses = mixtures(decoder).map(({ options: { experts: cached } }) => {
        if (!(cached instanceof ExpertCache)) throw new Error('no cache');
        return cached.stats.misses;
      });
      decoder.dispose();
      return { logits, misses };
    };
    const gated = await missesOf({ preGate: routerOf(experts) });
    expect(gated.misses).toEqual([0, 0, 0]);
    expect((await missesOf({})).misses.every((count) => count > 0)).toBe(true);
    const plain = await load(bytes, { activations: 'f32', preGate: routerOf(experts) });
    const cache = plain.createCache();
    const expected = [];
    for (const id of tokens) expected.push(...plain.forward([id], { cache }).data);
    expect(gated.logits).toEqual(expected);
    plain.dispose();
  });

  it('refuses a router that does not fit', async () => {
    const message =
      'Decoder: preGate.outFeatures is 7, expected 18 (experts of all mixtures), or those of each if it is one number';
    await expect(load(bytes, { preGate: routerOf(7) })).rejects.toMatchObject({
      code: 'BL_INVALID_SHAPE',
      message,
    });
    const narrow = new Linear(quantize(new Tensor('f32', gaussian(6 * 32, 1), [6, 32]), 'f32'));
    await expect(load(bytes, { preGate: narrow })).rejects.toMatchObject({
      message: 'Decoder: preGate.inFeatures is 32, expected 64 (= hiddenSize)',
    });
    const dense = ggufBytes(randomModel({ layers: 1 }).content);
    await expect(load(dense, { preGate: routerOf(6) })).rejects.toMatchObject({
      code: 'BL_INVALID_ARGUMENT',
      message: 'Decoder: preGate is given, expected none: no layer is a mixture',
    });
    expectError(
      () => preGate(new Tensor('f32', [1, 2], [1, 2]), { topK: 1, numLayers: 2, numExperts: 3 }),
      'BL_INVALID_SHAPE',
      'preGate: logits.shape[1] is 2, expected 3 (numExperts) or 6 (of all layers)',
    );
  });
});
