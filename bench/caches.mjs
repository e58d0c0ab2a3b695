// What formats and policies of a paged cache cost in quality: perplexity of a model on a text, in steps of 16 tokens; names that a
// model of children's stories finds again (needle.mjs); bytes of a token's keys and values.
// `node bench/caches.mjs [model.gguf] [text] [--budget 64] [--needle-model stories.gguf]`: the example model can not recall.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { kvPageBytes } from 'bitloom';
import * as nn from 'bitloom/nn';
import { cacheRows, lineOf } from './cache_table.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { budget: { type: 'string', default: '64' }, 'needle-model': { type: 'string' } },
});
const [
  model = 'examples/tiny.gguf',
  text = readFileSync('examples/train-tiny/heldout.txt', 'utf8').slice(0, 8000),
] = positionals;
const budget = Number(values.budget);
const decoder = await nn.load(model, { activations: 'f32' });
const other = values['needle-model'];
const needleDecoder = other === undefined ? decoder : await nn.load(other, { activations: 'f32' });
const { numKvHeads, headDim, valueDim, numLayers } = decoder.config;

function bytesPerToken(format) {
  const pageSize = format === 'i2' ? 32 : 64;
  const keys = kvPageBytes(format, 'keys', pageSize, headDim);
  const bytes = keys + kvPageBytes(format, 'values', pageSize, valueDim);
  return (bytes * numKvHeads * numLayers) / pageSize;
}

console.log('| cache | bytes a token | perplexity | needles found |\n| --- | --- | --- | --- |');
for await (const row of cacheRows(nn, { decoder, text, needleDecoder, budget, bytesPerToken })) {
  console.log(lineOf(row));
}
decoder.dispose();
if (needleDecoder !== decoder) needleDecoder.dispose();
