// 192 keys that leave a cache of 256, and the 64 that stay: 8 heads of 128 channels.
import { activationCase } from '../activations.mjs';
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';

export function* cases({ tiny }) {
  const [rows, kept, heads, channels] = tiny ? [3, 2, 2, 16] : [192, 64, 8, 128];
  const tokens = rows + kept;
  yield activationCase(
    {
      family: 'kv',
      op: 'nearest_keys',
      case: `${rows} to ${kept}, ${heads}x${channels}`,
      m: rows,
      n: kept,
      k: heads * channels,
    },
    {
      bytes: 4 * heads * (tokens * channels + rows),
      operations: 2 * heads * rows * kept * channels,
    },
    () => {
      const keys = gaussianTensor([tokens, heads, channels]);
      const from = (first, count) =>
        new bitloom.Tensor(
          'i32',
          Int32Array.from({ length: count * heads }, (_, i) => first + Math.floor(i / heads)),
          [count, heads],
        );
      const [leaving, staying] = [from(0, rows), from(rows, kept)];
      const index = bitloom.Tensor.zeros('i32', [rows, heads]);
      return {
        shape: [rows, heads],
        call: (run, similarity) =>
          bitloom.nearestKeys(keys, leaving, staying, { ...run, out: { index, similarity } }),
        /** Of the first key's heads. */
        reference: () =>
          Float64Array.from({ length: heads }, (_, head) => {
            const at = (token) =>
              keys.data.subarray((token * heads + head) * channels).slice(0, channels);
            const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
            const own = at(0);
            const cosines = Array.from({ length: kept }, (_, c) => {
              const other = at(rows + c);
              return dot(own, other) / Math.sqrt(dot(own, own) * dot(other, other));
            });
            return Math.max(...cosines);
          }),
      };
    },
  );
}
