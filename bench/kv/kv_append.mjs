// Tokens into pages of 16, 8 heads of 128 channels: one token, each time into another page of more than any cache holds,
// as decoding meets pages again; and a prompt of 512. Keys of i4 and i2 are written by whole pages: 16 tokens.
import { coldBytes, gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';

const pageSize = 16;

export function* cases({ tiny }) {
  const [heads, channels] = tiny ? [2, 16] : [8, 128];
  for (const format of ['f16', 'i8', 'i4', 'i2', 'bfp4']) {
    const least = format === 'i4' || format === 'i2' ? pageSize : 1;
    for (const m of tiny ? [least] : [least, 512]) {
      const head =
        bitloom.kvPageBytes(format, 'keys', pageSize, channels) +
        bitloom.kvPageBytes(format, 'values', pageSize, channels);
      const cold = m === least;
      const numPages = cold && !tiny ? Math.ceil(coldBytes / (heads * head)) : m;
      yield {
        family: 'kv',
        op: 'kv_append',
        case: `${heads}x${channels}`,
        format,
        m,
        n: heads * channels,
        k: 0,
        cold,
        type: 'f32',
        bytes: m * heads * (2 * 4 * channels + head / pageSize),
        operations: 2 * m * heads * 2 * channels, // at least a comparison and a product each
        prepare: () => prepare(format, m, { heads, channels, numPages }),
      };
    }
  }
}

function prepare(format, m, { heads, channels, numPages }) {
  const pages = new bitloom.KVPages({
    keyFormat: format,
    pageSize,
    numKvHeads: heads,
    keyDim: channels,
    numPages,
  });
  // The system gives memory at the first touch, which takes longer than a token.
  pages.keys.bytes.fill(0);
  pages.values.bytes.fill(0);
  const k = gaussianTensor([m, heads, channels]);
  const v = gaussianTensor([m, heads, channels], 2);
  const variants = Math.max(1, Math.floor((numPages * pageSize) / Math.max(m, pageSize)));
  const slots = Array.from({ length: variants }, (_, i) => {
    const first = i * Math.max(m, pageSize);
    const list = Int32Array.from({ length: m }, (_, t) => first + t);
    return new bitloom.Tensor('i32', list, [m]);
  });
  return {
    variants,
    body: (run, variant) => bitloom.kvAppend(k, v, slots[variant], pages, run),
    /** What the format loses: the tokens read back against the input. */
    error() {
      bitloom.kvAppend(k, v, slots[0], pages);
      const back = bitloom.kvGather(slots[0], pages);
      return relativeError([...back.k.data, ...back.v.data], [...k.data, ...v.data]);
    },
  };
}
