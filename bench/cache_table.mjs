// The rows of bench/caches.mjs: what each format and policy of a paged cache costs in perplexity, and in needles that are not found.
import { cues, findNeedles } from './needle.mjs';

export const formats = ['f32', 'f16', 'bf16', 'f8e4m3', 'i8', 'bfp8', 'i4', 'bfp4', 'i2'];

/** Policies by name, of `nn` (the module bitloom/nn), for a decoder; each call makes a new one. */
export function policiesOf(nn, decoder, budget) {
  const asked = decoder.tokenizer.encode(cues[0], { addBos: false });
  const withProbe = { epiCache: 'patch', citrus: 'instruction', infiniRetri: 'question' };
  const plain = [
    ...['streamingLLM', 'tova', 'h2o', 'scissorhands', 'snapKV', 'pyramidKV', 'cake', 'chunkKV'],
    ...['d2o', 'ems', 'compressKV', 'lookM', 'elasticCache', 'prefixKV', 'guiKV', 'adore'],
  ];
  return Object.fromEntries([
    ...plain.map((name) => [name, () => nn[name]({ budget })]),
    ...Object.entries(withProbe).map(([name, option]) => [
      name,
      () => nn[name]({ budget, [option]: asked }),
    ]),
  ]);
}

/**
 * A row { cache, bytes, perplexity, needles }.
 *
 * @param of what `caches` makes a cache for: by default the two decoders, else what was fitted to each
 * @param caches options of a cache, a function that makes them, or one that makes the cache, for `of`
 */
async function row(nn, { decoder, needleDecoder, text, lengths }, cache, bytes, caches, of) {
  const [first, second] = of ?? [{ decoder }, { decoder: needleDecoder }];
  return {
    cache,
    bytes,
    perplexity: (await nn.perplexity(first.decoder, text, { step: 16, cache: caches(first) }))
      .perplexity,
    needles: await findNeedles(second.decoder, { cache: caches(second), lengths }),
  };
}

/** Rows for formats and policies. */
export async function* cacheRows(nn, { budget, bytesPerToken, ...models }) {
  const { formats: wantedFormats = formats, policies: wanted } = models;
  for (const format of wantedFormats) {
    const options = () => ({ format, recent: 32 });
    yield await row(nn, models, format, bytesPerToken(format), options);
  }
  for (const name of wanted ?? Object.keys(policiesOf(nn, models.decoder, budget))) {
    const options =
      ({ decoder }) =>
      () => ({ format: 'f16', policy: policiesOf(nn, decoder, budget)[name]() });
    yield await row(nn, models, `${name}, ${budget} keys`, undefined, options);
  }
}

/**
 * Rows for what is fitted to a text: means of keys, orders of channels (of models loaded again), factors of low rank.
 *
 * @param calibration text that is fitted to, for both models as many tokens of it as they take
 * @param reload loads the model of a decoder again: `(decoder, options) => Promise<Decoder>`
 */
export async function* fittedRows(nn, { calibration, reload, bytesOfRank, ...models }) {
  const { fittedFormats = ['bfp8', 'bfp4'], parts = [1, 2, 4, 8] } = models;
  const fits = [];
  for (const decoder of [models.decoder, models.needleDecoder]) {
    const { rope, numKvHeads, headDim } = decoder.config;
    const ids = decoder.tokenizer.encode(calibration).slice(0, decoder.contextLength);
    const samples = nn.cacheSamples(decoder, ids);
    const channelOrders = samples.map((layer) => nn.fitChannelOrder(layer, rope));
    const keyMeans = samples.map((layer) => nn.fitKeyMean(layer, rope));
    const channels = numKvHeads * headDim;
    fits.push({ decoder, samples, channelOrders, keyMeans, channels });
  }
  const reordered = [];
  for (const { decoder, channelOrders } of fits) {
    reordered.push({ decoder: await reload(decoder, { channelOrders }) });
  }
  for (const format of fittedFormats) {
    const all = { format, recent: 0 };
    yield await row(nn, models, `${format}, all tokens`, undefined, () => all);
    yield await row(nn, models, `${format}, channels in order`, undefined, () => all, reordered);
    const smooth = ({ keyMeans }) => ({ ...all, keyMeans });
    yield await row(nn, models, `${format}, keys less their mean`, undefined, smooth, fits);
  }
  for (const { decoder } of reordered) decoder.dispose();
  for (const part of parts) {
    const fitted = fits.map(({ decoder, samples, channels }) => ({
      decoder,
      factors: samples.map((layer) => nn.fitLowRank(layer, { keyRank: channels / part })),
    }));
    for (const format of ['f16', 'i4']) {
      const cache =
        ({ decoder, factors }) =>
        () =>
          decoder.createLowRankCache({ factors, format, recent: 32, pageSize: 16 });
      const bytes = bytesOfRank(format, fits[0].channels / part);
      yield await row(nn, models, `1/${part} of the channels, ${format}`, bytes, cache, fitted);
    }
  }
}

/** A row as a line of a Markdown table. */
export function lineOf({ cache, bytes, perplexity, needles }) {
  const share = `${needles.found} of ${needles.of}`;
  return `| ${cache} | ${bytes?.toFixed(0) ?? ''} | ${perplexity.toFixed(4)} | ${share} |`;
}
