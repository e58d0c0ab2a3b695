import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { moeRoute, Tensor } from '../../../lib/index.js';
import { type GGUFTensor, ggufBytes, memorySource, readGGUF } from '../../../lib/io/index.js';
import {
  applyExpertPlan,
  compressModel,
  type Decoder,
  type ExpertLayer,
  evolveExperts,
  expertCounts,
  expertInputs,
  expertLayers,
  load,
  lowRankExperts,
  MoELayer,
  mergeExperts,
  perplexity,
  pruneByUsage,
  quantizeModel,
  withExperts,
} from '../../../lib/nn/index.js';
import { aliceChapters, tinyMoEModel } from '../models.js';
import { randomModel } from '../random_model.js';

const folder = mkdtempSync(join(tmpdir(), 'bitloom-compress-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 49, 0];
const out = (name: string) => join(folder, name);

const mixtures = (decoder: Decoder): MoELayer[] =>
  decoder.parts.layers.flatMap(({ mlp }) => (mlp instanceof MoELayer ? [mlp] : []));

function worst(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Array.from(a, (x, i) => Math.abs(x - (b[i] as number))).reduce(
    (m, x) => Math.max(m, x),
    0,
  );
}

describe('compressModel', () => {
  it.each([false, true])(
    'prunes experts that no token goes to without loss (tensors of their own: %s)',
    async (separate) => {
      const { content } = randomModel({ experts: 24, topK: 1, expertSize: 32, separate });
      const bytes = ggufBytes(content);
      const before = await load(bytes, { activations: 'f32' });
      const counts = expertCounts(before, tokens);
      expect(counts.map((own) => own.reduce((sum, n) => sum + n, 0))).toEqual([13, 13]);
      const seen: number[] = [];
      await compressModel(
        bytes,
        out('pruned.gguf'),
        (layer, i) => {
          const own = counts[i] as number[];
          seen.push(layer.experts.length);
          return pruneByUsage(layer, own, own.filter((n) => n > 0).length);
        },
        { onProgress: (done, total) => seen.push(done / total) },
      );
      expect(seen).toEqual([24, 0.5, 24, 1]);
      const after = await load(out('pruned.gguf'), { activations: 'f32' });
      expect(mixtures(after).map((m) => m.numExperts)).toEqual(
        counts.map((own) => own.filter((n) => n > 0).length),
      );
      const logits = before.forward(tokens, { logits: 'all' });
      expect(worst(after.forward(tokens, { logits: 'all' }).data, logits.data)).toBeLessThan(1e-5);
      for (const one of [before, after]) one.dispose();
    },
  );

  it('keeps what was not changed byte by byte, and writes one tensor where experts are alike', async () => {
    const { content } = randomModel({ architecture: 'deepseek2', experts: 6, topK: 2 });
    const bytes = ggufBytes(content);
    await compressModel(bytes, out('same.gguf'), (layer) => layer);
    const file = readGGUF(memorySource(readFileSync(out('same.gguf'))));
    const given = readGGUF(memorySource(bytes));
    expect([...file.tensors.keys()].sort()).toEqual([...given.tensors.keys()].sort());
    for (const [name, tensor] of given.tensors) {
      expect(Buffer.compare(tensor.data(), file.tensors.get(name)?.data() as Uint8Array)).toBe(0);
    }
    // A bias follows its expert.
    await compressModel(bytes, out('bias.gguf'), (layer) =>
      pruneByUsage(layer, [1, 0, 2, 3, 0, 4], 4),
    );
    const pruned = readGGUF(memorySource(readFileSync(out('bias.gguf'))));
    const bias = (from: typeof given) => {
      const { data } = from.tensors.get('blk.1.exp_probs_b.bias') as GGUFTensor;
      return Array.from(new Float32Array(Uint8Array.from(data()).buffer));
    };
    expect(bias(pruned)).toEqual([0, 2, 3, 5].map((e) => bias(given)[e]));
    expect(pruned.metadata.get('deepseek2.expert_count')).toBe(4);
    await expect(
      compressModel(bytes, out('no.gguf'), ({ bias: _, ...layer }) =>
        applyExpertPlan(layer, { route: one6, merge: one6 }),
      ),
    ).rejects.toThrow('blk.1 has a router with a bias, expected one of new experts too');
  });
  const one6 = [[0.5, 0.5, 0, 0, 0, 0]];

  it.each<[string, (layer: ExpertLayer) => ExpertLayer]>([
    ['pruned', (layer) => pruneByUsage(layer, [1, 0, 2, 3, 0, 4], 4)],
    ['merged', (layer) => mergeExperts(layer, { usage: [1, 0, 2, 3, 0, 4], groups: 3 })],
    [
      'found by a search',
      (layer) =>
        applyExpertPlan(layer, {
          route: [...one6, [0, 0, 0, 0, 1, 0]],
          merge: [...one6, [0, 0, 0, 0, 1, 0]],
        }),
    ],
    ['of low rank', (layer) => lowRankExperts(layer, { rank: 8 })],
  ])('carries the bias of a router (DeepSeek-V3), %s', async (_name, change) => {
    const bytes = ggufBytes(
      randomModel({ architecture: 'deepseek2', experts: 6, topK: 2 }).content,
    );
    const before = await load(bytes, { activations: 'f32' });
    await compressModel(bytes, out('biased.gguf'), change);
    const after = await load(out('biased.gguf'), { activations: 'f32' });
    const layers = expertLayers(before).map((layer) => layer && change(layer));
    const tried = withExperts(before, layers).forward(tokens, { logits: 'all' });
    expect(tried.data.every(Number.isFinite)).toBe(true);
    expect(worst(after.forward(tokens, { logits: 'all' }).data, tried.data)).toBeLessThan(1e-4);
    const given = (layers[1] as ExpertLayer).bias as Tensor<'f32'>;
    expect(mixtures(after)[0]?.options.route.bias?.toArray()).toEqual(given.toArray());
    const bare = layers.map((layer) => layer && { ...layer, bias: undefined });
    if (given.size !== 6) {
      expect(() => withExperts(before, bare)).toThrow('withExperts: layers[1].bias is missing');
    }
    for (const one of [before, after]) one.dispose();
  });

  it('keeps groups of experts whole, or refuses', async () => {
    const { content } = randomModel({ architecture: 'deepseek2', experts: 6, topK: 2 });
    content.metadata.set('deepseek2.expert_group_count', 3);
    content.metadata.set('deepseek2.expert_group_used_count', 2);
    const bytes = ggufBytes(content);
    const keep = (...counts: number[]) =>
      compressModel(bytes, out('groups.gguf'), (layer) =>
        pruneByUsage(layer, counts, counts.filter((n) => n > 0).length),
      );
    // Of the groups (0, 1), (2, 3) and (4, 5).
    await keep(1, 0, 1, 0, 0, 1);
    const decoder = await load(out('groups.gguf'));
    expect(mixtures(decoder)[0]?.numExperts).toBe(3);
    expect(decoder.forward(tokens).toArray().every(Number.isFinite)).toBe(true);
    decoder.dispose();
    const refusal = (count: number) => ({
      code: 'BL_UNSUPPORTED',
      message: expect.stringContaining(
        `blk.1 has ${count} experts now, expected 6, or equally many of each of 3 groups whose 2 best have room for 2`,
      ),
    });
    await expect(keep(1, 1, 1, 0, 0, 0)).rejects.toMatchObject(refusal(3));
    await expect(keep(1, 1, 1, 1, 1, 0)).rejects.toMatchObject(refusal(5));
    // A file in which a layer has lost a few, by another hand.
    const file = randomModel({ architecture: 'deepseek2', experts: 5, topK: 2 }).content;
    for (const [key, value] of [
      ['expert_count', 6],
      ['expert_group_count', 3],
      ['expert_group_used_count', 2],
    ] as const) {
      file.metadata.set(`deepseek2.${key}`, value);
    }
    await expect(load(ggufBytes(file))).rejects.toThrow(
      'blk.1 has 5 experts, expected a multiple of 3 (= expert_group_count)',
    );
  });

  it('refuses what is no function, no format and no option', async () => {
    const bytes = ggufBytes(randomModel({ experts: 4 }).content);
    const call = (change: unknown, options: object = {}) =>
      compressModel(bytes, out('no.gguf'), change as never, options);
    const same = (layer: ExpertLayer) => layer;
    await expect(call(undefined)).rejects.toThrow(
      'compressModel: change is undefined, expected a function',
    );
    await expect(call(() => undefined)).rejects.toThrow(
      'compressModel: layer is undefined, expected an object',
    );
    await expect(call(same, { format: 'q9' })).rejects.toMatchObject({ code: 'BL_INVALID_FORMAT' });
    await expect(call(same, { keep: 1 })).rejects.toThrow(
      'compressModel: option "keep" is not known',
    );
    const decoder = await load(bytes);
    expect(() => withExperts(decoder, undefined as never)).toThrow(
      'withExperts: layers is undefined',
    );
    expect(() => withExperts(decoder, [], { topK: 0 })).toThrow(
      'withExperts: topK is 0, expected at least 1',
    );
    decoder.dispose();
  });

  it('refuses layers that it would misread', async () => {
    const bytes = ggufBytes(randomModel({ experts: 4 }).content);
    const strided = (layer: ExpertLayer): ExpertLayer => {
      const { router } = layer;
      const [rows = 0, cols = 0] = router.shape;
      const values = new Float32Array(2 * router.size);
      return {
        ...layer,
        router: new Tensor('f32', values, [rows, cols], { strides: [2 * cols, 2] }),
      };
    };
    await expect(compressModel(bytes, out('no.gguf'), strided)).rejects.toThrow(
      'compressModel: router.strides is [128,2], expected those of contiguous rows',
    );
  });

  it('writes experts of formats that GGUF has no numbers for', async () => {
    const bytes = ggufBytes(randomModel({ experts: 4, expertSize: 32 }).content);
    writeFileSync(out('whole.gguf'), bytes);
    await quantizeModel(out('whole.gguf'), out('u4.gguf'), 'u4_g32');
    await compressModel(out('u4.gguf'), out('u4_pruned.gguf'), (layer) =>
      pruneByUsage(layer, [2, 0, 1, 3], 3),
    );
    const [given, pruned] = [await load(out('u4.gguf')), await load(out('u4_pruned.gguf'))];
    const upOf = (decoder: Decoder, e: number) =>
      (mixtures(decoder)[1] as MoELayer).experts.experts[e]?.up;
    for (const [now, before] of [0, 2, 3].entries()) {
      expect(upOf(pruned, now)?.format).toBe('u4_g32');
      expect(upOf(pruned, now)?.bytes).toEqual(upOf(given, before)?.bytes);
    }
    expect(pruned.forward(tokens).toArray().every(Number.isFinite)).toBe(true);
    for (const one of [given, pruned]) one.dispose();
  });

  it('writes experts of a token by layer, where they differ', async () => {
    const bytes = ggufBytes(randomModel({ experts: 4, topK: 3, layers: 3 }).content);
    const before = await load(bytes, { activations: 'f32' });
    const used = [1, 3, 2];
    const change = (layer: ExpertLayer, i: number) => ({ ...layer, topK: used[i] as number });
    await compressModel(bytes, out('used.gguf'), change);
    const file = readGGUF(memorySource(readFileSync(out('used.gguf'))));
    expect(file.metadata.get('llama.expert_used_count')).toBe(3);
    expect([0, 1, 2].map((i) => file.metadata.get(`bitloom.blk.${i}.expert_used_count`))).toEqual([
      1,
      undefined,
      2,
    ]);
    const after = await load(out('used.gguf'), { activations: 'f32' });
    expect(mixtures(after).map(({ options }) => options.route.topK)).toEqual(used);
    const tried = withExperts(before, (expertLayers(before) as ExpertLayer[]).map(change));
    const logits = tried.forward(tokens, { logits: 'all' });
    expect(worst(after.forward(tokens, { logits: 'all' }).data, logits.data)).toBeLessThan(1e-5);
    expect(worst(before.forward(tokens, { logits: 'all' }).data, logits.data)).toBeGreaterThan(
      1e-3,
    );
    // Read again they are given as they are, and may be made alike.
    const given: (number | undefined)[] = [];
    await compressModel(
      out('used.gguf'),
      out('alike.gguf'),
      (layer) => {
        given.push(layer.topK);
        return layer;
      },
      { topK: 2 },
    );
    expect(given).toEqual(used);
    const alike = readGGUF(memorySource(readFileSync(out('alike.gguf'))));
    expect(alike.metadata.get('llama.expert_used_count')).toBe(2);
    expect([...alike.metadata.keys()].filter((key) => key.startsWith('bitloom.blk'))).toEqual([]);
    await quantizeModel(out('used.gguf'), out('used_q8.gguf'), 'q8_0');
    const low = await load(out('used_q8.gguf'));
    expect(mixtures(low).map(({ options }) => options.route.topK)).toEqual(used);
    for (const one of [before, after, low]) one.dispose();
    const { content } = randomModel({ experts: 4, topK: 3 });
    content.metadata.set('bitloom.blk.1.expert_used_count', 5);
    await expect(load(ggufBytes(content))).rejects.toThrow(
      'metadata bitloom.blk.1.expert_used_count is 5, expected 1 to 4 (experts of the layer)',
    );
    await expect(
      compressModel(bytes, out('no.gguf'), (layer) => ({ ...layer, topK: 5 })),
    ).rejects.toThrow('compressModel: topK is 5, expected 1 to 4');
  });

  it('refuses models without experts, and more experts of a token than there are', async () => {
    const plain = ggufBytes(randomModel().content);
    await expect(compressModel(plain, out('no.gguf'), (layer) => layer)).rejects.toMatchObject({
      code: 'BL_UNSUPPORTED',
    });
    const bytes = ggufBytes(randomModel({ experts: 4 }).content);
    await expect(
      compressModel(bytes, out('no.gguf'), (layer) => layer, { topK: 5 }),
    ).rejects.toThrow('compressModel: topK is 5, expected 1 to 4');
  });
});

describe('expertInputs', () => {
  it('is what routers read, in every window', async () => {
    const { content } = randomModel({
      architecture: 'deepseek2',
      experts: 6,
      topK: 2,
      context: 128,
    });
    const decoder = await load(ggufBytes(content), { activations: 'f32' });
    const long = Array.from({ length: 300 }, (_, i) => (7 * i + (i % 11)) % 50);
    const inputs = expertInputs(decoder, long);
    expect(inputs.map((own) => own?.shape)).toEqual([undefined, [300, 64]]);
    const mixture = mixtures(decoder)[0] as MoELayer;
    for (let begin = 0; begin < 300; begin += 128) {
      const window = long.slice(begin, begin + 128);
      decoder.forward(window);
      const rows = (inputs[1] as Tensor<'f32'>).slice(begin, begin + window.length);
      const { indices } = moeRoute(mixture.options.router.forward(rows), mixture.options.route);
      expect(indices.toArray()).toEqual(mixture.lastRoutes?.indices.toArray());
    }
    decoder.dispose();
  });
});

describe('the example model with fewer experts', () => {
  const path = tinyMoEModel;
  const text = (aliceChapters()[6] as string).slice(0, 700);

  it('pruned, merged and found by a search still predicts; files give what was tried', async () => {
    const decoder = await load(path, { activations: 'f32' });
    const score = async (model: Decoder) => (await perplexity(model, text)).loss;
    const whole = await score(decoder);
    const counts = expertCounts(decoder, decoder.tokenizer?.encode(text) ?? []);
    const layers = expertLayers(decoder) as ExpertLayer[];
    const tried = async (change: (layer: ExpertLayer, i: number) => ExpertLayer) =>
      score(withExperts(decoder, layers.map(change)));
    const same = await tried((layer) => layer);
    expect(Math.abs(same - whole)).toBeLessThan(1e-3);
    const prune = (layer: ExpertLayer, i: number) => pruneByUsage(layer, counts[i] as number[], 6);
    const merge = (layer: ExpertLayer, i: number) =>
      mergeExperts(layer, { usage: counts[i] as number[], groups: 6 });
    const [pruned, merged] = [await tried(prune), await tried(merge)];
    const busiest = await tried((layer, i) =>
      pruneByUsage(
        layer,
        (counts[i] as number[]).map((count) => 1000 - count),
        6,
      ),
    );
    expect(busiest).toBeGreaterThan(pruned);
    expect(pruned).toBeGreaterThan(whole);
    const inputs = expertInputs(decoder, decoder.tokenizer?.encode(text) ?? []);
    const byActivations = await tried((layer, i) =>
      mergeExperts(layer, {
        ...{ usage: counts[i] as number[], groups: 6 },
        inputs: inputs[i] as Tensor<'f32'>,
      }),
    );
    expect(byActivations).toBeLessThan(whole + 1.5);
    expect(byActivations).not.toBe(merged);
    expect(pruned).toBeLessThan(whole + 1.5);
    expect(merged).toBeLessThan(whole + 1.5);
    await compressModel(path, out('merged.gguf'), merge);
    const file = await load(out('merged.gguf'), { activations: 'f32' });
    expect(mixtures(file).map((m) => m.numExperts)).toEqual([6, 6, 6, 6]);
    expect(Math.abs((await score(file)) - merged)).toBeLessThan(0.02);
    // A search that starts from pruning by chance does not end worse than its best beginning.
    const losses: number[] = [];
    const state = await evolveExperts({
      numExperts: layers.map(({ experts }) => experts.length),
      keep: 6,
      populationSize: 3,
      pruneSteps: 4,
      mergeSteps: 2,
      seed: 1,
      evaluate: async (plans) => {
        const loss = await tried((layer, i) =>
          applyExpertPlan(layer, plans[i] as (typeof plans)[0]),
        );
        losses.push(loss);
        return loss;
      },
    });
    expect(state.population[0]?.loss).toBe(Math.min(...losses));
    expect(losses).toHaveLength(9);
    writeFileSync(out('state.json'), JSON.stringify(state));
    for (const one of [decoder, file]) one.dispose();
  });
});
