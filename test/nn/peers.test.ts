// Files that bitloom writes, read and continued by llama.cpp. Runs where node-llama-cpp is installed (an
// optional 725 MB: bench/README.md has the command), and says so where it is not.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
// @ts-expect-error: a script of the bench, without types
import { findPeer } from '../../bench/peers/resolve.mjs';
import { softmax } from '../../lib/index.js';
import {
  type GGUFValue,
  type GGUFValueType,
  ggufBytes,
  memorySource,
  readGGUF,
  type Tokenizer,
} from '../../lib/io/index.js';
import { type Decoder, load, quantizeModel } from '../../lib/nn/index.js';
import { hasStories260k, stories260kGGUF } from '../models/stories260k.js';
import { aliceChapters, tinyMoEModel, tinyModel } from './models.js';
import { type RandomModelOptions, randomModel } from './random_model.js';

interface Peer {
  // biome-ignore lint/suspicious/noExplicitAny: an optional package's module
  module: any;
}
const peer: Peer | undefined = await findPeer('node-llama-cpp');
const tokens = 48;

describe.skipIf(peer === undefined)('node-llama-cpp (needs it installed)', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bitloom-peers-'));
  // biome-ignore lint/suspicious/noExplicitAny: as above
  let llama: any;
  beforeAll(async () => {
    const { getLlama, LlamaLogLevel } = peer?.module ?? {};
    llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error });
  });
  afterAll(async () => {
    await llama?.dispose();
    rmSync(folder, { recursive: true, force: true });
  });

  /** What llama.cpp adds to `prompt`, greedily. */
  async function continued(file: string, prompt: readonly number[]): Promise<number[]> {
    const model = await llama.loadModel({ modelPath: file });
    const context = await model.createContext({ contextSize: 256, threads: 1 });
    const found: number[] = [];
    for await (const token of context.getSequence().evaluate([...prompt], { temperature: 0 })) {
      found.push(token);
      if (found.length === tokens) break;
    }
    await model.dispose();
    return found;
  }

  async function ours(
    file: string,
    prompt: string,
  ): Promise<{ prompt: number[]; tokens: number[] }> {
    const decoder = await load(file);
    const generation = decoder.generate(prompt, { maxTokens: tokens });
    await generation.text();
    const result = { prompt: [...generation.promptTokens], tokens: [...generation.tokens] };
    decoder.dispose();
    return result;
  }

  it.each(['q8_0', 'f16'] as const)(
    'continues the demo model written in %s as bitloom does',
    async (format) => {
      const file = join(folder, `tiny-${format}.gguf`);
      await quantizeModel(tinyModel, file, format);
      const own = await ours(file, 'In the small house by the river');
      expect(own.tokens).toHaveLength(tokens);
      expect(await continued(file, own.prompt)).toEqual(own.tokens);
    },
  );

  const mixtures: RandomModelOptions[] = [
    { experts: 8, expertSize: 96 },
    { architecture: 'qwen2moe', experts: 6, topK: 4 },
    { architecture: 'qwen3moe', experts: 16, topK: 4 },
    { architecture: 'olmoe', experts: 5, topK: 3, expertSize: 96 },
    { architecture: 'deepseek', experts: 6, topK: 3 },
    { architecture: 'deepseek2', experts: 6, topK: 3, queryRank: 40 },
    { architecture: 'deepseek2', experts: 6, topK: 3, queryRank: 40, transposed: true },
    { architecture: 'deepseek2', experts: 6, topK: 3, queryRank: 40, yarn: 8 },
    { architecture: 'llama', yarn: 4 },
  ];
  it.each(mixtures)('gives the probabilities that bitloom gives: %o', async (options) => {
    const { metadata, types: given } = readGGUF(memorySource(readFileSync(tinyModel)));
    const words = metadata.get('tokenizer.ggml.tokens') as GGUFValue[];
    const { content } = randomModel({ ...options, vocab: words.length, untied: true });
    const types = new Map<string, GGUFValueType>();
    for (const [key, value] of metadata) {
      if (!key.startsWith('tokenizer.')) continue;
      content.metadata.set(key, value);
      types.set(key, given.get(key) as GGUFValueType);
    }
    for (const key of content.metadata.keys()) {
      if (/freq_base|epsilon|weights_scale|factor|multiplier/.test(key)) types.set(key, 'f32');
    }
    const file = join(folder, `${options.architecture ?? 'mixtral'}.gguf`);
    writeFileSync(file, ggufBytes({ ...content, types }));
    await compareProbabilities(file, () => [1, 40, 70, 9, 33, 150, 12, 99]);
  });

  /** Of the token after a prompt. */
  async function compareProbabilities(
    file: string,
    promptOf: (decoder: Decoder) => readonly number[],
  ): Promise<void> {
    const decoder = await load(file, { activations: 'f32' });
    const prompt = promptOf(decoder);
    const ours = softmax(decoder.forward(prompt)).toArray();
    decoder.dispose();
    const model = await llama.loadModel({ modelPath: file });
    const context = await model.createContext({ contextSize: 64, threads: 1 });
    const last = [prompt.at(-1), { generateNext: { probabilities: true } }];
    const found = await context.getSequence().controlledEvaluate([...prompt.slice(0, -1), last]);
    const theirs: Map<number, number> = found.at(-1).next.probabilities;
    await model.dispose();
    expect(theirs.size).toBe(ours.length);
    // Products in f32 on both sides, keys and values of theirs in f16: 2^-11 of logits of about 4.
    for (const [id, probability] of theirs) {
      expect(Math.abs(Math.log(probability) - Math.log(ours[id] as number))).toBeLessThan(2e-2);
    }
  }

  it.each([0, 4, 11])('gives the probabilities of the book in f32, chapter %i', async (chapter) => {
    const file = join(folder, 'alice.gguf');
    await quantizeModel(tinyMoEModel, file, 'f32');
    const text = aliceChapters()[chapter] as string;
    await compareProbabilities(file, ({ tokenizer }) =>
      (tokenizer as Tokenizer).encode(text.slice(500, 900)).slice(0, 60),
    );
  });

  it.skipIf(!hasStories260k)('continues stories260K written in f32 as bitloom does', async () => {
    const file = join(folder, 'stories.gguf');
    writeFileSync(file, stories260kGGUF());
    const own = await ours(file, 'Once upon a time');
    expect(own.tokens).toHaveLength(tokens);
    expect(await continued(file, own.prompt)).toEqual(own.tokens);
  });
});
