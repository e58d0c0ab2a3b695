// What formats and policies of a paged cache cost in quality: perplexity of a model on a text, in steps of 16 tokens, and bytes of a
// token's keys and values. Then what is fitted to another text (--calibration, default: what follows the text in the example's):
// orders of channels, means of keys, factors of low rank. `node bench/caches.mjs [model.gguf] [text] [--budget 64]`.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { kvPageBytes } from 'bitloom';
import {
  cacheSamples,
  cake,
  chunkKV,
  fitChannelOrder,
  fitKeyMean,
  fitLowRank,
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
  options: { budget: { type: 'string', default: '64' }, calibration: { type: 'string' } },
});
const heldOut = readFileSync('examples/train-tiny/heldout.txt', 'utf8');
const [model = 'examples/tiny.gguf', text = heldOut.slice(0, 8000)] = positionals;
const calibration = values.calibration ?? heldOut.slice(8000, 16000);
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

const { rope } = decoder.config;
const ids = decoder.tokenizer.encode(calibration).slice(0, decoder.contextLength);
const samples = cacheSamples(decoder, ids);
async function line(name, of, cache, bytes = '') {
  const { perplexity: value } = await perplexity(of, text, { step: 16, cache });
  console.log(`| ${name} | ${bytes} | ${value.toFixed(4)} |`);
}
const channelOrders = samples.map((layer) => fitChannelOrder(layer, rope));
const reordered = await load(model, { activations: 'f32', channelOrders });
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
