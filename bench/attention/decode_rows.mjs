// One new token over keys and values as rows of tensors, which is how `KVCache` has them; 32 heads of 128 channels with 8 shared
// key heads.
import { coldBytes, gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';
import { firstHead } from './attention.mjs';

export function* cases({ tiny, quick }) {
  const [heads, sharedHeads, channels] = tiny ? [4, 2, 16] : [32, 8, 128];
  for (const dtype of ['f32', 'f16']) {
    for (const keys of tiny ? [64] : quick ? [8192] : [1024, 8192]) {
      yield rowsCase({ heads, sharedHeads, channels, dtype, keys, cold: !tiny });
    }
  }
}

function rowsCase({ heads, sharedHeads, channels, dtype, keys, cold }) {
  const elements = 2 * keys * sharedHeads * channels;
  const cacheBytes = elements * (dtype === 'f32' ? 4 : 2);
  return {
    family: 'attention',
    op: 'attention',
    case: `${heads}/${sharedHeads}x${channels} ${keys} keys, rows`,
    format: dtype,
    m: 1,
    n: keys,
    k: channels,
    cold,
    type: 'f32',
    bytes: cacheBytes + 8 * heads * channels,
    operations: 4 * keys * heads * channels,
    prepare() {
      const variants = cold ? Math.ceil(coldBytes / cacheBytes) : 1;
      const q = gaussianTensor([1, heads, channels]);
      const out = bitloom.Tensor.zeros('f32', [1, heads, channels]);
      const exact = [2, 3].map((seed) => gaussianTensor([keys, sharedHeads, channels], seed));
      const caches = Array.from({ length: variants }, () =>
        exact.map((rows) => copyOf(rows, dtype)),
      );
      return {
        variants,
        body: (run, variant) => bitloom.attention(q, ...caches[variant], { ...run, out }),
        error: () => relativeError(out.data, firstHead(q, ...exact)),
      };
    },
  };
}

/** The same values in `dtype`. */
function copyOf(rows, dtype) {
  const out = bitloom.Tensor.empty(dtype, rows.shape);
  return bitloom.add(rows, bitloom.Tensor.zeros('f32', [rows.shape[2]]), { out });
}
