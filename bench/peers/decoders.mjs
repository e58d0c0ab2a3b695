// A whole model from one GGUF file: bitloom beside node-llama-cpp, the same threads and tokens.
import { statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { uniform } from '../data.mjs';
import { relativeError, summary } from '../statistics.mjs';
import { findPeer } from './resolve.mjs';

const { load } = await import('../../dist/esm/nn/index.js');

/**
 * Prompt and decode times of both, in turn.
 *
 * @returns { prompt, decode }: each { own, other } in microseconds (of the prompt; of a step), and facts
 */
export async function compareDecoders(file, { threads, promptTokens, decodeTokens, rounds }) {
  const peer = await findPeer('node-llama-cpp');
  if (peer === undefined) return undefined;
  const next = uniform(9);
  const prompt = Array.from({ length: promptTokens }, () => 300 + Math.floor(next() * 30000));
  const own = await bitloomDecoder(file, threads, prompt, decodeTokens);
  const other = await llamaDecoder(peer.module, file, threads, prompt, decodeTokens);
  const samples = { own: [], other: [] };
  try {
    await own.run();
    await other.run();
    for (let round = 0; round < rounds; round++) {
      for (const [name, one] of round % 2 === 0
        ? [
            ['own', own],
            ['other', other],
          ]
        : [
            ['other', other],
            ['own', own],
          ]) {
        await sleep(200);
        samples[name].push(await one.run());
      }
    }
  } finally {
    own.dispose();
    await other.dispose();
  }
  const of = (phase) => ({
    own: summary(samples.own.map((sample) => sample[phase])),
    other: summary(samples.other.map((sample) => sample[phase])),
  });
  return {
    prompt: of('prompt'),
    decode: of('decode'),
    version: peer.version,
    config: own.config,
    error: own.error,
    fileBytes: statSync(file).size,
  };
}

async function bitloomDecoder(file, threads, prompt, decodeTokens) {
  const decoder = await load(file, { threads });
  return {
    config: decoder.config,
    error: await activationError(file, decoder, prompt.slice(0, 8)),
    async run() {
      const generation = decoder.generate(prompt, { maxTokens: decodeTokens + 1, stopTokens: [] });
      await generation.text();
      const { promptSeconds, decodeSeconds, steps } = generation.stats;
      return { prompt: promptSeconds * 1e6, decode: (decodeSeconds / steps) * 1e6 };
    },
    dispose: () => decoder.dispose(),
  };
}

/** Of the logits after `tokens`, against the same weights with f32 activations. */
async function activationError(file, decoder, tokens) {
  const exact = await load(file, { activations: 'f32' });
  const error = relativeError(decoder.forward(tokens).data, exact.forward(tokens).data);
  exact.dispose();
  return error;
}

async function llamaDecoder({ getLlama, LlamaLogLevel }, file, threads, prompt, decodeTokens) {
  const llama = await getLlama({
    gpu: false,
    build: 'never',
    maxThreads: threads,
    logLevel: LlamaLogLevel.error,
  });
  const model = await llama.loadModel({ modelPath: file });
  const context = await model.createContext({
    contextSize: prompt.length + decodeTokens + 8,
    batchSize: Math.max(prompt.length, 32),
    threads: { ideal: threads, min: threads },
  });
  const sequence = context.getSequence();
  return {
    async run() {
      await sequence.clearHistory();
      let start = performance.now();
      await sequence.evaluateWithoutGeneratingNewTokens(prompt.slice(0, -1));
      const body = performance.now() - start;
      // The last token of the prompt gives the first new one: its time belongs to the prompt.
      start = performance.now();
      let first = 0;
      let count = 0;
      const options = { temperature: 0, yieldEogToken: true };
      for (let input = prompt.slice(-1); count <= decodeTokens; ) {
        // Ends at an end-of-text token: then it goes on from there.
        for await (const token of sequence.evaluate(input, options)) {
          if (count === 0) first = performance.now() - start;
          input = [token];
          if (++count > decodeTokens) break;
        }
      }
      const total = performance.now() - start;
      return { prompt: (body + first) * 1000, decode: ((total - first) / decodeTokens) * 1000 };
    },
    async dispose() {
      await context.dispose();
      await model.dispose();
      await llama.dispose();
    },
  };
}
