// 512 tokens out of pages of 16, 8 heads of 128 channels.
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';

const pageSize = 16;

export function* cases({ tiny }) {
  const [m, heads, channels] = tiny ? [16, 2, 16] : [512, 8, 128];
  for (const format of ['f16', 'i8', 'i4']) {
    const head =
      bitloom.kvPageBytes(format, 'keys', pageSize, channels) +
      bitloom.kvPageBytes(format, 'values', pageSize, channels);
    yield {
      family: 'kv',
      op: 'kv_gather',
      case: `${heads}x${channels}`,
      format,
      m,
      n: heads * channels,
      k: 0,
      cold: false,
      type: 'f32',
      bytes: m * heads * (2 * 4 * channels + head / pageSize),
      operations: m * heads * 2 * channels,
      prepare() {
        const pages = new bitloom.KVPages({
          keyFormat: format,
          pageSize,
          numKvHeads: heads,
          keyDim: channels,
          numPages: m / pageSize,
        });
        const k = gaussianTensor([m, heads, channels]);
        const v = gaussianTensor([m, heads, channels], 2);
        const slots = new bitloom.Tensor(
          'i32',
          Int32Array.from({ length: m }, (_, t) => t),
          [m],
        );
        bitloom.kvAppend(k, v, slots, pages);
        const out = bitloom.kvGather(slots, pages);
        return {
          variants: 1,
          body: (run) => bitloom.kvGather(slots, pages, { ...run, ...out }),
          /** What the format loses: the tokens read back against the input. */
          error: () => relativeError([...out.k.data, ...out.v.data], [...k.data, ...v.data]),
        };
      },
    };
  }
}
