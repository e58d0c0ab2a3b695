// npm run bench:cuda: products on a CUDA device, measured beside the roofline bound of that GPU, its bandwidth and f16
// weights in the same run. Weights rotate over more than the cache holds; a round of them is one graph, so that no
// launch waits for the host. With --tiny and the emulated driver it tests itself: its times then say nothing.
import { parseArgs } from 'node:util';
import {
  add,
  Device,
  Graph,
  matmul,
  packWeights,
  quantize,
  Tensor,
  whyNoDevice,
} from '../dist/esm/index.js';
import { gpus, matmulBound } from '../test/cuda-report/roofline.mjs';

const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda:0' },
    formats: { type: 'string', default: 'u4_g128,q4_0,q4_k,q8_0,u3_g128,u2_g128,nf4_g64,mxfp4' },
    rows: { type: 'string', default: '1,8,16,64,256,1024' },
    shapes: { type: 'string', default: '4096x4096' },
    compute: { type: 'string' },
    tiny: { type: 'boolean', default: false },
  },
});
if (whyNoDevice() !== undefined) {
  console.error(`bench:cuda: ${whyNoDevice()}`);
  process.exit(1);
}
const device = new Device(options.device);
const info = device.info();
// 'NVIDIA H100 80GB HBM3' is 'H100 SXM', 'NVIDIA GeForce RTX 4090' is 'RTX 4090'.
const model = (name) => name.match(/[A-Z]+\d+[A-Z]*|\d{4}/)?.[0];
const gpu =
  gpus.find(({ name }) => info.name.split(/\s+/).includes(model(name))) ??
  gpus.find(({ arch }) => arch === info.arch);
const shapes = options.tiny
  ? [[128, 256]]
  : options.shapes.split(',').map((s) => s.split('x').map(Number));
const [rounds, cacheBytes] = options.tiny ? [2, 0] : [15, 192 << 20];
const rows = options.rows
  .split(',')
  .map(Number)
  .filter((m) => !options.tiny || m <= 16);

const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];

/** Median microseconds of one of `count` operators that `body` queues. */
async function microseconds(count, body) {
  body(); // scratch is allocated, modules are loaded
  device.synchronize();
  const graph = new Graph(options.device, body);
  const times = [];
  for (let round = 0; round < rounds; round++) {
    times.push(((await device.time(() => graph.launch())) * 1e6) / count);
  }
  return median(times.slice(1));
}

/** The bits of an f16 number from 1/16 to 1, of either sign. */
const randomHalf = () =>
  (0x2c00 + Math.floor(Math.random() * 0x1000)) | (Math.random() < 0.5 ? 0x8000 : 0);

/** Median microseconds of a product of m rows. */
async function measure({ list, k, n }, m) {
  const a = Tensor.empty('f16', [m, k], options.device);
  a.write(Uint16Array.from({ length: m * k }, randomHalf));
  const out = Tensor.empty('f16', [m, n], options.device);
  const settings = { out, ...(options.compute !== undefined && { compute: options.compute }) };
  const time = await microseconds(list.length, () => {
    for (const w of list) matmul(a, w, settings);
  });
  a.dispose();
  out.dispose();
  return time;
}

/** The same weights as often as it takes to leave the cache. */
async function copies(format, n, k) {
  const dense = new Tensor(
    'f32',
    Float32Array.from({ length: n * k }, () => Math.random() - 0.5),
    [n, k],
  );
  const packed = packWeights(quantize(dense, format), { for: 'cuda' });
  const count = 2 + Math.floor(cacheBytes / packed.nativeMemory.byteLength);
  const list = [];
  for (let i = 0; i < count; i++) list.push(await packed.to(options.device));
  return { list, n, k, bits: packed.bits };
}

/** GB/s, read and written, of a sum of two large tensors: what memory gives a kernel that does little else. */
async function bandwidth() {
  const size = options.tiny ? 1 << 10 : 1 << 28;
  const [a, b, out] = [0, 0, 0].map(() => Tensor.empty('f16', [size], options.device));
  for (const tensor of [a, b]) tensor.write(new Uint16Array(size).fill(0x3c00));
  const time = await microseconds(1, () => add(a, b, { out }));
  for (const tensor of [a, b, out]) tensor.dispose();
  return (6e-3 * size) / time;
}

console.log(
  `${info.name}, compute capability ${(info.arch / 10).toFixed(1)}; bounds of ${gpu?.name}; ` +
    `memory ${(await bandwidth()).toFixed(0)} GB/s measured, ${gpu?.bandwidth} by its data sheet`,
);
console.log(
  'format        N x K           M   measured us   bound us   share of bound   times f16   TFLOPS    GB/s',
);
for (const [n, k] of shapes) {
  const reference = new Map();
  for (const format of ['f16', ...options.formats.split(',')]) {
    const weights = await copies(format, n, k);
    for (const m of rows) {
      const us = await measure(weights, m);
      if (format === 'f16') reference.set(m, us);
      // Bits of a weight with its scales.
      const limit = matmulBound(gpu, {
        m,
        n,
        k,
        bits: weights.bits,
        group: Number.POSITIVE_INFINITY,
      });
      const cells = [
        [format, -12],
        [`${n}x${k}`, -12],
        [m, 5],
        [us.toFixed(1), 13],
        [limit.microseconds.toFixed(1), 10],
        [(limit.microseconds / us).toFixed(2), 16],
        [(reference.get(m) / us).toFixed(2), 11],
        [((2e-6 * m * n * k) / us).toFixed(1), 8],
        [(((weights.bits * n * k) / 8 + 2 * m * (n + k)) / us / 1e3).toFixed(0), 7],
      ];
      console.log(
        cells
          .map(([text, width]) =>
            width < 0 ? String(text).padEnd(-width) : String(text).padStart(width),
          )
          .join(' '),
      );
    }
    for (const w of weights.list) w.dispose();
  }
}
