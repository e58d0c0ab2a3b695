// One new token of a sequence over a paged cache of keys and values, 32 heads of 128 channels with 8 shared key
// heads; and of 16 sequences whose pages are the same, or their own.
import { coldBytes, copies, gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';
import { relativeError } from '../statistics.mjs';
import { firstHead } from './attention.mjs';

const pageSize = 64;

export function* cases({ tiny, quick }) {
  const [heads, sharedHeads, channels] = tiny ? [4, 2, 16] : [32, 8, 128];
  const shape = { heads, sharedHeads, channels };
  for (const format of ['f16', 'i8', 'i4']) {
    for (const keys of tiny ? [64] : quick ? [8192] : [1024, 8192, 32768]) {
      yield decodeCase({ ...shape, format, keys, sequences: 1, shared: false, cold: !tiny });
    }
  }
  if (quick) return;
  for (const format of ['f16', 'i8', 'i4']) {
    for (const shared of [true, false]) {
      const [keys, sequences] = tiny ? [576, 2] : [4096, 16];
      yield decodeCase({ ...shape, format, keys, sequences, shared, cold: !tiny });
    }
  }
}

function decodeCase({ heads, sharedHeads, channels, format, keys, sequences, shared, cold }) {
  const compute = format === 'f16' ? 'f32' : 'i8';
  const pages = Math.ceil(keys / pageSize) * (shared ? 1 : sequences);
  const sizes = [false, true].map((values) =>
    bitloom.kvPageBytes(format, values ? 'values' : 'keys', pageSize, channels),
  );
  const cacheBytes = pages * sharedHeads * (sizes[0] + sizes[1]);
  const what = sequences === 1 ? '' : shared ? ', the same pages' : ', their own pages';
  return {
    family: 'attention',
    op: 'decode_attention',
    case: `${heads}/${sharedHeads}x${channels} ${keys} keys${what}`,
    format,
    m: sequences,
    n: keys,
    k: channels,
    cold,
    type: compute,
    bytes: cacheBytes + 8 * sequences * heads * channels,
    operations: 4 * sequences * keys * heads * channels,
    prepare() {
      const variants = cold ? Math.ceil(coldBytes / cacheBytes) : 1;
      const q = gaussianTensor([sequences, heads, channels]);
      const out = bitloom.Tensor.zeros('f32', [sequences, heads, channels]);
      const page = onePage(format, sharedHeads, channels);
      const memory = repeated(page, pages);
      const segments = copies(memory, variants).map((bytes) =>
        segmentOf(page, bytes, sequences, shared),
      );
      return {
        variants,
        body: (run, variant) =>
          bitloom.decodeAttention(q, [segments[variant]], { ...run, compute, out }),
        /** All pages are alike, so that the result is that of one of them. */
        error() {
          const tokens = new bitloom.Tensor(
            'i32',
            Int32Array.from({ length: pageSize }, (_, i) => i),
            [pageSize],
          );
          const { k, v } = bitloom.kvGather(tokens, page);
          return relativeError(out.data, firstHead(q, k, v, 1));
        },
      };
    },
  };
}

/** A page of Gaussian keys and values. */
function onePage(format, numKvHeads, keyDim) {
  const page = new bitloom.KVPages({
    keyFormat: format,
    numKvHeads,
    keyDim,
    pageSize,
    numPages: 1,
  });
  const slots = new bitloom.Tensor(
    'i32',
    Int32Array.from({ length: pageSize }, (_, i) => i),
    [pageSize],
  );
  const shape = [pageSize, numKvHeads, keyDim];
  return bitloom.kvAppend(gaussianTensor(shape, 2), gaussianTensor(shape, 3), slots, page);
}

/** The page's keys `count` times and then its values. */
function repeated(page, count) {
  const parts = [page.keys.bytes, page.values.bytes];
  const bytes = new Uint8Array(count * (parts[0].length + parts[1].length));
  let at = 0;
  for (const part of parts) {
    for (let i = 0; i < count; i++, at += part.length) bytes.set(part, at);
  }
  return bytes;
}

function segmentOf(page, bytes, sequences, shared) {
  const pageBytes = page.keys.bytes.length + page.values.bytes.length;
  const numPages = bytes.length / pageBytes;
  const keyBytes = numPages * page.keys.bytes.length;
  const pages = {
    keyFormat: page.keyFormat,
    valueFormat: page.valueFormat,
    pageSize,
    numKvHeads: page.numKvHeads,
    keyDim: page.keyDim,
    valueDim: page.valueDim,
    numPages,
    keys: new bitloom.Tensor('u8', bytes.subarray(0, keyBytes), [keyBytes]),
    values: new bitloom.Tensor('u8', bytes.subarray(keyBytes), [bytes.length - keyBytes]),
  };
  const own = shared ? numPages : numPages / sequences;
  const table = Int32Array.from({ length: sequences * own }, (_, i) => (shared ? i % own : i));
  return {
    pages,
    blockTable: new bitloom.Tensor('i32', table, [sequences, own]),
    lengths: new bitloom.Tensor('i32', new Int32Array(sequences).fill(own * pageSize), [sequences]),
  };
}
