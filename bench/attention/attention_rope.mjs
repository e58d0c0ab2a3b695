// Rotary position embedding on the way of attention: a prompt over rows, and one new token over pages whose keys are stored
// before rotation; 32 heads of 128 channels with 8 shared key heads. Beside it the same call without rope in f32, and
// what turning the keys alone takes, as one would beforehand.
import { activationCase } from '../activations.mjs';
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { firstHead } from './attention.mjs';

const theta = 10000;
const positions = (count) =>
  new bitloom.Tensor(
    'i32',
    Int32Array.from({ length: count }, (_, i) => i),
    [count],
  );

export function* cases({ tiny, quick }) {
  const [heads, sharedHeads, channels] = tiny ? [4, 2, 16] : [32, 8, 128];
  const shape = { heads, sharedHeads, channels };
  const [m, keys, cached] = tiny ? [4, 40, 64] : [128, 2048, 8192];
  yield* bothCases({ ...shape, m, keys, format: undefined });
  for (const format of quick ? ['i8'] : ['f16', 'i8']) {
    yield* bothCases({ ...shape, m: 1, keys: cached, format });
  }
  yield keysCase({ ...shape, keys: cached });
}

const names = (m, keys, k, what) => ({
  family: 'attention',
  op: 'attention_rope',
  case: what,
  m,
  n: keys,
  k,
});

function* bothCases({ heads, sharedHeads, channels, m, keys, format }) {
  const seen = m * (keys - m) + (m * (m + 1)) / 2;
  const size = keys * sharedHeads * channels;
  const bytes = { undefined: 4, f16: 2, i8: 1 }[format];
  for (const rope of [{ theta }, undefined]) {
    const where = format === undefined ? 'rows' : `pages of ${format}`;
    const what = `${heads}/${sharedHeads}x${channels} ${keys} keys, ${where}, ${rope ? 'rope on the way' : 'no rope'}`;
    yield activationCase(
      names(m, keys, channels, what),
      {
        bytes: 2 * size * bytes + 8 * m * heads * channels,
        operations: 4 * seen * heads * channels + (rope ? 3 * size : 0),
      },
      () => {
        const q = gaussianTensor([m, heads, channels]);
        const rows = [2, 3].map((seed) => gaussianTensor([keys, sharedHeads, channels], seed));
        const segment = format === undefined ? undefined : segmentOf(format, rows);
        const more = { causal: true, ...(rope ? { rope } : {}) };
        return {
          shape: [m, heads, channels],
          call: (run, out) =>
            segment === undefined
              ? bitloom.attention(q, ...rows, { ...run, ...more, out })
              : bitloom.decodeAttention(q, [segment], { ...run, ...more, out }),
          reference() {
            const [k, v] = segment === undefined ? rows : decoded(segment, keys);
            return rope ? firstHead(turn(q, keys - m), turn(k, 0), v) : firstHead(q, k, v);
          },
        };
      },
    );
  }
}

function keysCase({ sharedHeads, channels, keys }) {
  const size = keys * sharedHeads * channels;
  return activationCase(
    names(
      keys,
      sharedHeads,
      channels,
      `${sharedHeads}x${channels} ${keys} keys, rope of the keys alone`,
    ),
    { bytes: 8 * size, operations: 3 * size },
    () => {
      const k = gaussianTensor([keys, sharedHeads, channels], 2);
      const all = positions(keys);
      return {
        shape: [keys, sharedHeads, channels],
        call: (run, out) => bitloom.rope(k, all, { ...run, theta, out }),
        reference: () => turn(k, 0).data,
      };
    },
  );
}

function segmentOf(keyFormat, [k, v]) {
  const [keys, numKvHeads, keyDim] = k.shape;
  const pageSize = 64;
  const numPages = Math.ceil(keys / pageSize);
  const pages = new bitloom.KVPages({ keyFormat, pageSize, numKvHeads, keyDim, numPages });
  bitloom.kvAppend(k, v, positions(keys), pages);
  return {
    pages,
    blockTable: new bitloom.Tensor('i32', positions(numPages).data, [1, numPages]),
    lengths: new bitloom.Tensor('i32', [keys], [1]),
  };
}

function decoded({ pages }, keys) {
  const { k, v } = bitloom.kvGather(positions(keys), pages);
  return [k, v];
}

/** x [tokens, heads, channels], channels of all heads turned by positions first, first + 1, ... in double. */
function turn(x, first) {
  const [, heads, channels] = x.shape;
  const pairs = channels / 2;
  const data = Float64Array.from(x.data);
  for (let i = 0; i < data.length; i++) {
    const j = i % channels;
    if (j >= pairs) continue;
    const position = first + Math.floor(i / (heads * channels));
    const angle = position * theta ** ((-2 * j) / channels);
    data[i] = x.data[i] * Math.cos(angle) - x.data[i + pairs] * Math.sin(angle);
    data[i + pairs] = x.data[i] * Math.sin(angle) + x.data[i + pairs] * Math.cos(angle);
  }
  return { shape: x.shape, data };
}
