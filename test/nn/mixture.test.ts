import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ggufBytes, mapFile, readGGUF } from '../../lib/io/index.js';
import { ExpertCache, load, MoELayer, quantizeModel } from '../../lib/nn/index.js';
import { randomModel } from './random_model.js';

const folder = mkdtempSync(join(tmpdir(), 'bitloom-mixture-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 49, 0];
const model = { architecture: 'qwen2moe', experts: 6, topK: 2, expertSize: 64 } as const;

function mixtureOf(decoder: Awaited<ReturnType<typeof load>>, layer: number): MoELayer {
  const { mlp } = decoder.parts.layers[layer] ?? {};
  if (!(mlp instanceof MoELayer)) throw new Error('no mixture');
  return mlp;
}

describe('a model with experts', () => {
  const { content } = randomModel(model);
  const bytes = ggufBytes(content);
  const path = join(folder, 'model.gguf');
  writeFileSync(path, bytes);

  it('is packed when it comes from a path, and gives the same logits', async () => {
    const mapped = await load(path, { activations: 'f32' });
    const plain = await load(bytes, { activations: 'f32' });
    const [first] = mixtureOf(mapped, 0).experts.experts;
    expect(first?.up.layout).toBe('lanes16');
    expect(mixtureOf(plain, 0).experts.experts[0]?.up.layout).toBe('canonical');
    expect(mapped.forward(tokens).toArray()).toEqual(plain.forward(tokens).toArray());
    for (const decoder of [mapped, plain]) decoder.dispose();
  });

  it('says where its tokens went, of each layer and of each step', async () => {
    const decoder = await load(bytes);
    const [a, b] = [decoder.forwardAsync(tokens), decoder.forwardAsync(tokens.slice(0, 4))];
    const both = await Promise.all([a, b]);
    expect(both[0].toArray()).toEqual(decoder.forward(tokens).toArray());
    for (const layer of [0, 1]) {
      const { indices, weights } = mixtureOf(decoder, layer).lastRoutes ?? {};
      expect(indices?.shape).toEqual([tokens.length, 2]);
      expect(indices?.toArray().every((e) => e >= 0 && e < 6)).toBe(true);
      expect(weights?.toArray().every((w) => w > 0 && w < 1)).toBe(true);
    }
    expect(mixtureOf(decoder, 0).lastRoutes?.indices.toArray()).not.toEqual(
      mixtureOf(decoder, 1).lastRoutes?.indices.toArray(),
    );
    decoder.dispose();
  });

  it.each(['q8_0', 'u4_g32'] as const)('is written in %s, routers as they were', async (format) => {
    const out = join(folder, `${format}.gguf`);
    await quantizeModel(path, out, format);
    const { tensors } = readGGUF(mapFile(out));
    expect(tensors.get('blk.0.ffn_gate_inp.weight')?.type).toBe('f32');
    const written = await load(out);
    const onTheWay = await load(bytes, { format });
    const experts = mixtureOf(written, 1).experts.experts;
    expect(experts.map(({ down }) => down.format)).toEqual(new Array(7).fill(format));
    expect(written.forward(tokens).toArray()).toEqual(onTheWay.forward(tokens).toArray());
    for (const decoder of [written, onTheWay]) decoder.dispose();
  });

  it('runs layers with fewer experts than the file says, as pruning leaves them', async () => {
    const pruned = randomModel({ architecture: 'llama', experts: 3, topK: 2, separate: true });
    const whole = ggufBytes(pruned.content);
    pruned.content.metadata.set('llama.expert_count', 8);
    const decoder = await load(ggufBytes(pruned.content));
    const expected = await load(whole);
    expect(mixtureOf(decoder, 0).numExperts).toBe(3);
    expect(decoder.forward(tokens).toArray()).toEqual(expected.forward(tokens).toArray());
    for (const one of [decoder, expected]) one.dispose();
  });

  it('keeps the experts in use in memory, the others in the file', async () => {
    const whole = await load(path, { activations: 'f32' });
    const expert = 3 * 64 * 64 * 4;
    const decoder = await load(path, { activations: 'f32', expertCache: { bytes: 10 * expert } });
    const { experts } = mixtureOf(decoder, 0).options;
    if (!(experts instanceof ExpertCache)) throw new Error('no cache');
    for (let i = 0; i < 5; i++) {
      const of = [i, i + 7];
      expect(decoder.forward(of).toArray()).toEqual(whole.forward(of).toArray());
      await experts.prefetch([]); // waits for what the step has begun
      expect((await decoder.forwardAsync(of)).toArray()).toEqual(whole.forward(of).toArray());
      await experts.prefetch([]);
      expect(experts.stats.bytes).toBeLessThanOrEqual(5 * expert);
    }
    expect(experts.stats.hits).toBeGreaterThan(5);
    expect(experts.stats.misses).toBeGreaterThan(2);
    expect(experts.stats.loaded).toBeGreaterThan(2);
    const layouts = mixtureOf(decoder, 0).experts.experts.map(({ up }) => up.layout);
    expect(new Set(layouts)).toEqual(new Set(['canonical', 'lanes16']));
    for (const one of [decoder, whole]) one.dispose();
  });

  it('refuses a device, and files that do not fit', async () => {
    const decoder = await load(bytes);
    await expect(mixtureOf(decoder, 0).to('cuda:0')).rejects.toMatchObject({
      code: 'BL_UNSUPPORTED',
    });
    decoder.dispose();
    const cases: [string, unknown, string][] = [
      ['expert_used_count', 7, 'expert_used_count is 7, expected a whole number from 1 to 6'],
      ['expert_weights_norm', 1, 'expert_weights_norm is 1, expected true or false'],
      ['expert_group_count', 4, 'expert_group_count is 4, expected a divisor of 6'],
      ['expert_gating_func', 3, 'expert_gating_func is 3, expected a whole number from 1 to 2'],
      [
        'expert_feed_forward_length',
        32,
        'ffn_gate_exps.weight has shape [6,64,64], expected [6,32,64]',
      ],
    ];
    for (const [key, value, message] of cases) {
      const other = randomModel(model).content;
      other.metadata.set(`qwen2moe.${key}`, value as number);
      await expect(load(ggufBytes(other))).rejects.toThrow(message);
    }
  });
});
