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

/** Rows { cache, bytes, perplexity, needles } for formats and policies. */
export async function* cacheRows(
  nn,
  { decoder, text, needleDecoder, budget, bytesPerToken, lengths, ...only },
) {
  const { formats: wantedFormats = formats, policies: wanted } = only;
  const row = async (cache, bytes, options) => ({
    cache,
    bytes,
    perplexity: (await nn.perplexity(decoder, text, { step: 16, cache: options(decoder) }))
      .perplexity,
    needles: await findNeedles(needleDecoder, { cache: options(needleDecoder), lengths }),
  });
  for (const format of wantedFormats) {
    const options = () => ({ format, recent: 32 });
    yield await row(format, bytesPerToken(format), options);
  }
  for (const name of wanted ?? Object.keys(policiesOf(nn, decoder, budget))) {
    const options = (which) => () => ({
      format: 'f16',
      policy: policiesOf(nn, which, budget)[name](),
    });
    yield await row(`${name}, ${budget} keys`, undefined, options);
  }
}

/** A row as a line of a Markdown table. */
export function lineOf({ cache, bytes, perplexity, needles }) {
  const share = `${needles.found} of ${needles.of}`;
  return `| ${cache} | ${bytes?.toFixed(0) ?? ''} | ${perplexity.toFixed(4)} | ${share} |`;
}
