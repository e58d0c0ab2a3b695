// Files that bitloom writes, read and continued by llama.cpp. Runs where node-llama-cpp is installed (an
// optional 725 MB: bench/README.md has the command), and says so where it is not.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
// @ts-expect-error: a script of the bench, without types
import { findPeer } from '../../bench/peers/resolve.mjs';
import { load, quantizeModel } from '../../lib/nn/index.js';
import { hasStories260k, stories260kGGUF } from '../models/stories260k.js';
import { tinyModel } from './models.js';

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

  it.skipIf(!hasStories260k)('continues stories260K written in f32 as bitloom does', async () => {
    const file = join(folder, 'stories.gguf');
    writeFileSync(file, stories260kGGUF());
    const own = await ours(file, 'Once upon a time');
    expect(own.tokens).toHaveLength(tokens);
    expect(await continued(file, own.prompt)).toEqual(own.tokens);
  });
});
