// Calls whose counters stand in the report: sizes that fill tiles, and some that do not. Run on the emulated driver:
//   BITLOOM_CUDA_DRIVER=<libcuda_emulated.so> BITLOOM_CUDA_EMULATION_COUNTERS=<file> node test/cuda-report/cases.mjs
import {
  attention,
  embedding,
  matmul,
  packWeights,
  quantize,
  rmsNorm,
  rope,
  sample,
  softmax,
  swiglu,
  Tensor,
  whyNoDevice,
} from '../../dist/esm/index.js';

if (whyNoDevice() !== undefined) throw new Error(whyNoDevice());
const device = 'cuda:0';
let state = 1;
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 31 - 1;
};
const values = (shape) => {
  const count = shape.reduce((product, size) => product * size, 1);
  return new Tensor('f32', Float32Array.from({ length: count }, random), shape);
};
const there = (shape) => values(shape).to(device);
/** Random bits of an f16 in [1, 2): what prompt kernels read as it lies. */
const halves = (shape) => {
  const count = shape.reduce((product, size) => product * size, 1);
  const bits = Uint16Array.from({ length: count }, () => 0x3c00 | ((random() * 512 + 512) & 0x3ff));
  return new Tensor('f16', bits, shape).to(device);
};
/** Random bits of a bf16 in [1, 2). */
const brains = (shape) => {
  const count = shape.reduce((product, size) => product * size, 1);
  const bits = Uint16Array.from({ length: count }, () => 0x3f80 | ((random() * 64 + 64) & 0x7f));
  return new Tensor('bf16', bits, shape).to(device);
};

const [n, k] = [256, 1024];
const dense = values([n, k]);
for (const format of [
  'u4_g128',
  'q4_0',
  'q4_k',
  'u3_g128',
  'q8_0',
  'nf4_g64',
  'mxfp4',
  't2_g128',
]) {
  const w = await packWeights(quantize(dense, format), { for: 'cuda' }).to(device);
  for (const m of [1, 8, 64]) matmul(await halves([m, k]), w);
}
// Activations of bf16 as they lie, with weights that have kernels of their own.
for (const format of ['u4_g128', 'q4_0', 'q8_0', 'mxfp4', 'e3m2_g32', 'e4m3_g32', 'bf16']) {
  const w = await packWeights(quantize(dense, format), { for: 'cuda' }).to(device);
  for (const m of [1, 64]) matmul(await brains([m, k]), w);
}
// In int8: a scale per 32 activations, or per row.
for (const [format, activationGroup] of [
  ['u4_g128', 32],
  ['q8_0', 32],
  ['q4_k', 32],
  ['u4_g128', 'row'],
  ['u8_g128', 'row'],
  ['u4_row', 'row'],
  ['i8_row', 'row'],
]) {
  const w = await packWeights(quantize(dense, format), { for: 'cuda' }).to(device);
  for (const m of [1, 64]) {
    matmul(await halves([m, k]), w, { compute: 'i8', activationGroup });
  }
}
// Activations of e4m3: products of fp8 on devices that have them.
for (const [format, activationGroup] of [
  ['u4_g128', 'row'],
  ['u4_g128', 32],
  ['mxfp4', 32],
  ['e4m3_g128', 'row'],
  ['e3m2_g32', 'row'],
]) {
  const w = await packWeights(quantize(dense, format), { for: 'cuda' }).to(device);
  for (const m of [1, 64]) {
    matmul(await halves([m, k]), w, { compute: 'e4m3', activationGroup });
  }
}

const head = { q: [1, 8, 128], keys: [512, 2, 128] };
attention(await there(head.q), await there(head.keys), await there(head.keys), { causal: true });
attention(await there([64, 8, 64]), await there([64, 2, 64]), await there([64, 2, 64]), {
  causal: true,
});
rmsNorm(await there([4, 4096]), await there([4096]));
softmax(await there([4, 4096]));
swiglu(await there([4, 4096]), await there([4, 4096]));
const positions = await new Tensor('i32', [0, 1, 2, 3], [4]).to(device);
rope(await there([4, 8, 128]), positions);
const table = await quantize(values([64, 256]), 'q4_0').to(device);
embedding(table, positions);
sample(await there([1024]), { temperature: 0.8, topK: 40, seed: 1 });
