// What formats and policies of a paged cache cost in quality: perplexity of a model on a text, in steps of 16 tokens; names that a
// model of children's stories finds again (needle.mjs); bytes of a token's keys and values. Then what is fitted to another text
// (--calibration, default: what follows the text in the example's): orders of channels, means of keys, factors of low rank.
// `node bench/caches.mjs [model.gguf] [text] [--budget 64] [--needle-model stories.gguf]`: the example model can not recall.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { kvPageBytes } from 'bitloom';
import * as nn from 'bitloom/nn';
import { cacheRows, fittedRows, lineOf } from './cache_table.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    budget: { type: 'string', default: '64' },
    calibration: { type: 'string' },
    'needle-model': { type: 'string' },
  },
});
const heldOut = readFileSync('examples/train-tiny/heldout.txt', 'utf8');
const [model = 'examples/tiny.gguf', text = heldOut.slice(0, 8000)] = positionals;
const calibration = values.calibration ?? heldOut.slice(8000, 16000);
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

function bytesOfRank(format, rank) {
  const bytes = kvPageBytes(format, 'keys', 16, rank) + kvPageBytes(format, 'values', 16, rank);
  return (bytes * numLayers) / 16;
}

const reload = (of, more) =>
  nn.load(of === decoder ? model : other, { activations: 'f32', ...more });

console.log('| cache | bytes a token | perplexity | needles found |\n| --- | --- | --- | --- |');
const models = { decoder, text, needleDecoder };
for await (const row of cacheRows(nn, { ...models, budget, bytesPerToken })) {
  console.log(lineOf(row));
}
for await (const row of fittedRows(nn, { ...models, calibration, reload, bytesOfRank })) {
  console.log(lineOf(row));
}
decoder.dispose();
if (needleDecoder !== decoder) needleDecoder.dispose();
