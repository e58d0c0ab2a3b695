// What formats and policies of a paged cache cost in quality: perplexity of a model on a text, in steps of 16 tokens, and bytes of a
// token's keys and values. `node bench/caches.mjs [model.gguf] [text] [--budget 64]`.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { kvPageBytes } from 'bitloom';
import {
  cake,
  chunkKV,
  h2o,
  load,
  perplexity,
  pyramidKV,
  scissorhands,
  snapKV,
  streamingLLM,
  tova,
} from 'bitloom/nn';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { budget: { type: 'string', default: '64' } },
});
const [
  model = 'examples/tiny.gguf',
  text = readFileSync('examples/train-tiny/heldout.txt', 'utf8').slice(0, 8000),
] = positionals;
const budget = Number(values.budget);
const decoder = await load(model, { activations: 'f32' });
const { numKvHeads, headDim, valueDim, numLayers } = decoder.config;
const policies = { streamingLLM, tova, h2o, scissorhands, snapKV, pyramidKV, cake, chunkKV };

function bytesPerToken(format, pageSize) {
  const keys = kvPageBytes(format, 'keys', pageSize, headDim);
  const bytes = keys + kvPageBytes(format, 'values', pageSize, valueDim);
  return (bytes * numKvHeads * numLayers) / pageSize;
}

console.log('| cache | bytes a token | perplexity |\n| --- | --- | --- |');
for (const format of ['f32', 'f16', 'bf16', 'f8e4m3', 'i8', 'bfp8', 'i4', 'bfp4', 'i2']) {
  const options = { step: 16, cache: { format, recent: 32 } };
  const { perplexity: value } = await perplexity(decoder, text, options);
  const bytes = bytesPerToken(format, format === 'i2' ? 32 : 64);
  console.log(`| ${format} | ${bytes.toFixed(0)} | ${value.toFixed(4)} |`);
}
for (const [name, policy] of Object.entries(policies)) {
  const cache = () => ({ format: 'f16', policy: policy({ budget }) });
  const { perplexity: value } = await perplexity(decoder, text, { step: 16, cache });
  console.log(`| ${name}, ${budget} keys | | ${value.toFixed(4)} |`);
}
decoder.dispose();
