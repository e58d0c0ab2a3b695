// Tokens into rows of a cache of f16 or f32, 8 heads of 128 channels: one token, each time into another row of more than
// any cache of the processor holds; and a prompt of 512.
import { coldBytes, gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';

export function* cases({ tiny }) {
  const [heads, channels] = tiny ? [2, 16] : [8, 128];
  for (const format of ['f16', 'f32']) {
    const row = 2 * heads * channels * (format === 'f16' ? 2 : 4);
    for (const m of tiny ? [1] : [1, 512]) {
      const cold = m === 1;
      const capacity = cold && !tiny ? Math.ceil(coldBytes / row) : 4 * m;
      yield {
        family: 'kv',
        op: 'kv_write',
        case: `${heads}x${channels}`,
        format,
        m,
        n: heads * channels,
        k: 0,
        cold,
        type: 'f32',
        bytes: m * (2 * 4 * heads * channels + row),
        operations: m * 2 * heads * channels, // a conversion each
        prepare: () => prepare(format, m, { heads, channels, capacity }),
      };
    }
  }
}

function prepare(format, m, { heads, channels, capacity }) {
  const rows = () => bitloom.Tensor.zeros(format, [capacity, heads, channels]);
  const cache = { keys: rows(), values: rows() };
  // The system gives memory at the first touch, which takes longer than a token.
  for (const tensor of [cache.keys, cache.values]) tensor.bytes.fill(0);
  const k = gaussianTensor([m, heads, channels]);
  const v = gaussianTensor([m, heads, channels], 2);
  const variants = Math.floor(capacity / m);
  const slots = Array.from({ length: variants }, (_, i) => {
    const list = Int32Array.from({ length: m }, (_, t) => i * m + t);
    return new bitloom.Tensor('i32', list, [m]);
  });
  return {
    variants,
    body: (run, variant) => bitloom.kvWrite(k, v, slots[variant], cache, run),
    /** What rounding loses. */
    error() {
      bitloom.kvWrite(k, v, slots[0], cache);
      const back = [cache.keys, cache.values].flatMap((t) => t.slice(0, m).toArray());
      return relativeError(back, [...k.data, ...v.data]);
    },
  };
}
