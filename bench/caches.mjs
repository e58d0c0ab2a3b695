// What formats and policies of a paged cache cost in quality: perplexity of a model on a text, in steps of 16 tokens; names that a
// model of children's stories finds again (needle.mjs); bytes of a token's keys and values. Then what is fitted to another text
// (--calibration, default: what follows the text in the example's): orders of channels, means of keys, factors of low rank.
// `node bench/caches.mjs [model.gguf] [text] [--budget 64] [--needle-model stories.gguf]`: the example model can not recall.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { kvPageBytes } from 'bitloom';
import * as nn from 'bitloom/nn';
import { cacheRows, lineOf } from './cache_table.mjs';

const { cacheSamples, fitChannelOrder, fitKeyMean, fitLowRank, perplexity } = nn;
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

console.log('| cache | bytes a token | perplexity | needles found |\n| --- | --- | --- | --- |');
for await (const row of cacheRows(nn, { decoder, text, needleDecoder, budget, bytesPerToken })) {
  console.log(lineOf(row));
}

const { rope } = decoder.config;
const ids = decoder.tokenizer.encode(calibration).slice(0, decoder.contextLength);
const samples = cacheSamples(decoder, ids);
async function line(name, of, cache, bytes = '') {
  const { perplexity: value } = await perplexity(of, text, { step: 16, cache });
  console.log(`| ${name} | ${bytes} | ${value.toFixed(4)} | |`);
}
const channelOrders = samples.map((layer) => fitChannelOrder(layer, rope));
const reordered = await nn.load(model, { activations: 'f32', channelOrders });
const keyMeans = samples.map((layer) => fitKeyMean(layer, rope));
for (const format of ['f32', 'bfp8', 'bfp4']) {
  await line(`${format}, all tokens`, decoder, { format, recent: 0 });
  await line(`${format}, channels in order`, reordered, { format, recent: 0 });
  await line(`${format}, keys less their mean`, decoder, { format, recent: 0, keyMeans });
}
for (const part of [1, 2, 4, 8]) {
  const keyRank = (numKvHeads * headDim) / part;
  const factors = samples.map((layer) => fitLowRank(layer, { keyRank }));
  for (const format of ['f16', 'i4']) {
    const cache = () => decoder.createLowRankCache({ factors, format, recent: 32, pageSize: 16 });
    const bytes =
      kvPageBytes(format, 'keys', 16, keyRank) + kvPageBytes(format, 'values', 16, keyRank);
    await line(`rank ${keyRank}, ${format}`, decoder, cache, ((bytes * numLayers) / 16).toFixed(0));
  }
}
reordered.dispose();
decoder.dispose();
if (needleDecoder !== decoder) needleDecoder.dispose();
