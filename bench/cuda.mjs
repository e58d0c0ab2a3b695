// npm run bench:cuda: products on a CUDA device, measured beside the roofline bound of that GPU and of f16 weights in the
// same run. Weights rotate over more than the cache holds. With --tiny and the emulated driver it tests itself: its
// times then say nothing.
import { parseArgs } from 'node:util';
import { Device, matmul, packWeights, quantize, Tensor, whyNoDevice } from '../dist/esm/index.js';
import { gpus, matmulBound } from '../test/cuda-report/roofline.mjs';

const { values: options } = parseArgs({
  options: {
    device: { type: 'string', default: 'cuda:0' },
    formats: { type: 'string', default: 'u4_g128,q4_0,q4_k,q8_0,u3_g128,u2_g128,nf4_g64,mxfp4' },
    rows: { type: 'string', default: '1,8,16,64,256,1024' },
    tiny: { type: 'boolean', default: false },
  },
});
if (whyNoDevice() !== undefined) {
  console.error(`bench:cuda: ${whyNoDevice()}`);
  process.exit(1);
}
const device = new Device(options.device);
const info = device.info();
const gpu =
  gpus.find(({ name }) => info.name.includes(name.split(' ').slice(0, 2).join(' '))) ??
  gpus.find(({ arch }) => arch === info.arch);
const [n, k, rounds, cacheBytes] = options.tiny ? [128, 256, 2, 0] : [4096, 4096, 30, 256 << 20];

const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];

/** Median microseconds of a product of m rows. */
async function measure(weights, m) {
  const a = Tensor.empty('f16', [m, k], options.device);
  a.write(new Uint16Array(m * k).fill(0x3c00));
  const out = Tensor.empty('f16', [m, n], options.device);
  const times = [];
  for (let round = 0; round < rounds; round++) {
    const w = weights[round % weights.length];
    times.push((await device.time(() => matmul(a, w, { out }))) * 1e6);
  }
  return median(times.slice(1));
}

/** The same weights as often as it takes to leave the cache. */
async function copies(format) {
  const dense = new Tensor(
    'f32',
    Float32Array.from({ length: n * k }, () => Math.random() - 0.5),
    [n, k],
  );
  const packed = packWeights(quantize(dense, format), { for: 'cuda' });
  const count = 1 + Math.floor(cacheBytes / packed.nativeMemory.byteLength);
  const list = [];
  for (let i = 0; i < count; i++) list.push(await packed.to(options.device));
  return { list, bits: packed.bits };
}

console.log(
  `${info.name}, compute capability ${(info.arch / 10).toFixed(1)}; ${n} x ${k}; bounds of ${gpu?.name}`,
);
console.log('format           M   measured us   bound us   share of bound   times f16   device');
const rows = options.rows
  .split(',')
  .map(Number)
  .filter((m) => !options.tiny || m <= 16);
const f16 = await copies('f16');
const reference = new Map();
for (const m of rows) reference.set(m, await measure(f16.list, m));
for (const format of options.formats.split(',')) {
  const { list, bits } = await copies(format);
  for (const m of rows) {
    const us = await measure(list, m);
    // Bits of a weight with its scales.
    const limit = matmulBound(gpu, { m, n, k, bits, group: Number.POSITIVE_INFINITY });
    const cells = [
      us.toFixed(1),
      limit.microseconds.toFixed(1),
      (limit.microseconds / us).toFixed(2),
    ];
    const faster = (reference.get(m) / us).toFixed(2);
    console.log(
      `${format.padEnd(12)} ${String(m).padStart(5)} ${cells[0].padStart(13)} ${cells[1].padStart(10)} ` +
        `${cells[2].padStart(16)} ${faster.padStart(11)}   ${info.name}`,
    );
  }
  for (const w of list) w.dispose();
}
