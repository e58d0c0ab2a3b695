// bitloom's matmul beside ONNX Runtime's products of the same shape, weight width and threads. Each has
// weights of its own (the layouts differ); `error` is bitloom's, as in npm run bench.

import { coldBytes, gaussian } from '../data.mjs';
import { cases } from '../matmul/matmul.mjs';
import { interleave } from './interleave.mjs';
import { productModel, sessions } from './onnx.mjs';
import { findPeer } from './resolve.mjs';

const pairs = [
  { format: 'q4_0', compute: 'i8', kind: 'MatMulNBits', bits: 4, block: 32, accuracy: 4 },
  { format: 'q4_0', compute: 'f32', kind: 'MatMulNBits', bits: 4, block: 32, accuracy: 0 },
  { format: 'u4_g128', compute: 'i8', kind: 'MatMulNBits', bits: 4, block: 128, accuracy: 4 },
  { format: 'q8_0', compute: 'i8', kind: 'MatMulNBits', bits: 8, block: 32, accuracy: 4 },
  { format: 'u2_g64', compute: 'i8', kind: 'MatMulNBits', bits: 2, block: 64, accuracy: 4 },
  { format: 'f32', compute: 'f32', kind: 'MatMul', bits: 32 },
  { format: 'i8_row', compute: 'i8', kind: 'DynamicQuantizeMatMul', bits: 8 },
];

/** Yields { case, isa-independent configuration, times, peer } of every pair, shape, M and thread count. */
export async function* compareProducts({ threads, budget, filter, tiny }) {
  const ort = await findPeer('onnxruntime-node');
  const proto = await findPeer('onnx-proto');
  if (ort === undefined || proto === undefined) return;
  const { onnx } = proto.module.default ?? proto.module;
  const runtime = ort.module.default ?? ort.module;
  for (const [n, k] of tiny
    ? [[64, 256]]
    : [
        [4096, 4096],
        [11008, 4096],
      ]) {
    for (const pair of pairs) {
      const own = [
        ...cases({
          shapes: [[n, k]],
          formats: [pair.format],
          ms: tiny ? [1, 3] : [1, 8, 32, 256],
          cold: !tiny,
        }),
      ]
        .filter((one) => one.type === pair.compute)
        .filter((one) => filter(one));
      if (own.length === 0) continue;
      const name = `onnxruntime-node ${pair.kind}${pair.block ? ` ${pair.bits} bits, blocks of ${pair.block}, accuracy ${pair.accuracy}` : ''}`;
      const model = productModel(onnx, pair.kind, { n, k, ...pair });
      for (const count of threads) {
        const coldCount = own.some((one) => one.cold)
          ? Math.ceil((coldBytes * 8) / (n * k * pair.bits))
          : 1;
        const list = await sessions(runtime, model, coldCount, count);
        for (const one of own) {
          yield await comparePair(one, count, runtime, list, budget, {
            name,
            version: ort.version,
          });
        }
        for (const session of list) await session.release();
      }
    }
  }
}

async function comparePair(one, threads, runtime, list, budget, peer) {
  const prepared = one.prepare();
  const input = new runtime.Tensor('float32', gaussian(one.m * one.k), [one.m, one.k]);
  const used = one.cold ? list : list.slice(0, 1);
  let theirTurn = 0;
  let ourTurn = 0;
  const theirs = () => used[theirTurn++ % used.length].run({ a: input });
  const ours = async () => prepared.body({ threads }, ourTurn++ % prepared.variants);
  const [own, other] = await interleave([ours, theirs], budget);
  prepared.body({ threads }, 0);
  return {
    one,
    threads,
    algorithm: prepared.algorithm({ threads }),
    times: { median_us: own.median, p10_us: own.p10, p90_us: own.p90 },
    error: prepared.error(),
    peer: { ...peer, median_us: other.median, ratio: other.median / own.median },
  };
}
