// Roofline bounds: the least time that the counted work can take at the peak figures of a GPU. A bound and not a
// prediction: latency, clocks under load, caches and launch gaps are outside it.

/**
 * Peak figures of the makers' data sheets, dense (no sparsity). `half` and `integer8`, `fp8`: tensor core TFLOPS or TOPS,
 * f32 (int32) sums; `bandwidth`: GB/s of memory; `multiprocessors` and `clock` (GHz, boost) for shared memory.
 * On Hopper and Blackwell data-centre GPUs these peaks want wgmma and tcgen05; `mma.sync`, which these kernels use,
 * reaches a part of them, so their bounds are loose.
 */
export const gpus = [
  {
    name: 'A100 80GB SXM',
    arch: 80,
    half: 312,
    integer8: 624,
    fp8: 0,
    bandwidth: 2039,
    multiprocessors: 108,
    clock: 1.41,
    source: 'NVIDIA A100 data sheet (2022)',
  },
  {
    name: 'RTX 3090',
    arch: 86,
    half: 71,
    integer8: 284,
    fp8: 0,
    bandwidth: 936,
    multiprocessors: 82,
    clock: 1.695,
    source: 'NVIDIA Ampere GA102 whitepaper, table 9',
  },
  {
    name: 'RTX 4090',
    arch: 89,
    half: 165.2,
    integer8: 660.6,
    fp8: 330.3,
    bandwidth: 1008,
    multiprocessors: 128,
    clock: 2.52,
    source: 'NVIDIA Ada whitepaper, appendix A',
  },
  {
    name: 'L40S',
    arch: 89,
    half: 362,
    integer8: 733,
    fp8: 733,
    bandwidth: 864,
    multiprocessors: 142,
    clock: 2.52,
    source: 'NVIDIA L40S data sheet',
  },
  {
    name: 'H100 SXM',
    arch: 90,
    half: 989,
    integer8: 1979,
    fp8: 1979,
    bandwidth: 3350,
    multiprocessors: 132,
    clock: 1.83,
    source: 'NVIDIA H100 data sheet',
  },
  {
    name: 'H200 SXM',
    arch: 90,
    half: 989,
    integer8: 1979,
    fp8: 1979,
    bandwidth: 4800,
    multiprocessors: 132,
    clock: 1.83,
    source: 'NVIDIA H200 data sheet',
  },
  {
    name: 'B200',
    arch: 100,
    half: 2250,
    integer8: 4500,
    fp8: 4500,
    bandwidth: 8000,
    multiprocessors: 148,
    clock: 1.85,
    source: 'NVIDIA DGX B200 data sheet, per GPU',
  },
  {
    name: 'RTX 5090',
    arch: 120,
    half: 209.5,
    integer8: 838,
    fp8: 419,
    bandwidth: 1792,
    multiprocessors: 170,
    clock: 2.407,
    source: 'NVIDIA RTX Blackwell whitepaper, appendix A',
  },
];

/**
 * Least microseconds of the work on the GPU, and what bounds it. `bytes`: moved to and from memory; `operations`: of
 * tensor cores, 2 per product; `kind`: 'half', 'integer8' or 'fp8'; `wavefronts`: passes over shared memory in all.
 * Null where the GPU has no tensor cores of the kind.
 */
export function bound(gpu, { bytes, operations = 0, kind = 'half', wavefronts = 0 }) {
  if (operations > 0 && !gpu[kind]) return null;
  const times = {
    memory: bytes / (gpu.bandwidth * 1e3),
    tensor: operations > 0 ? operations / (gpu[kind] * 1e6) : 0,
    shared: wavefronts / (gpu.multiprocessors * gpu.clock * 1e3),
  };
  const microseconds = Math.max(...Object.values(times));
  return { microseconds, limit: Object.keys(times).find((name) => times[name] === microseconds) };
}

/**
 * Bound of c = a b^T with weights of `bits` (scales of 16 bits per `group`) against the same with f16 weights, both read
 * once: how much faster the quantized product can at most be.
 */
export function matmulBound(gpu, { m, n, k, bits, group }) {
  const operations = 2 * m * n * k;
  const activations = 2 * (m * k + m * n);
  const quantized = bound(gpu, {
    bytes: (n * k * bits) / 8 + (2 * n * k) / group + activations,
    operations,
  });
  const half = bound(gpu, { bytes: 2 * n * k + activations, operations });
  return { ...quantized, speedup: half.microseconds / quantized.microseconds };
}
