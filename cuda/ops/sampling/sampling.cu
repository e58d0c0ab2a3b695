// sample: logits to keys, penalties, the largest key, the sum of all weights, the draw. Integer atomics only: their order
// does not matter.
#include "pick.cuh"

#define BL_CUDA_SAMPLE_KERNEL(name, threads)           \
  extern "C" __global__ void __launch_bounds__(threads) \
      name(const __grid_constant__ bitloom::cuda::SampleParams p)

BL_CUDA_SAMPLE_KERNEL(sample_keys, bitloom::cuda::kSampleThreads) {
  using namespace bitloom::cuda;
#pragma unroll 1
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.vocab; i += int64_t{gridDim.x} * blockDim.x) {
    const float logit = p.logits[i];
    if (isnan(logit)) atomicMax(&p.result->nan, 0x7fffffffu - static_cast<uint32_t>(i));
    p.keys[i] = isnan(logit) ? 0 : key_of(logit, i);
  }
}

// An id may come more than once: each time the same key is stored, atomically.
BL_CUDA_SAMPLE_KERNEL(sample_penalize, bitloom::cuda::kSampleThreads) {
  using namespace bitloom::cuda;
#pragma unroll 1
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.previous_count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const int32_t id = p.previous[i * p.previous_stride];
    if (id < 0 || id >= p.vocab) {
      atomicMax(&p.result->bad_previous, 0x7fffffffu - static_cast<uint32_t>(i));
      continue;
    }
    const float logit = p.logits[id];
    if (!isnan(logit)) {
      atomicExch(reinterpret_cast<unsigned long long*>(p.keys + id), key_of(penalized(logit, p.penalty), id));
    }
  }
}

BL_CUDA_SAMPLE_KERNEL(sample_largest, bitloom::cuda::kSampleThreads) {
  using namespace bitloom::cuda;
  uint64_t largest = 0;
  uint32_t candidates = 0;
#pragma unroll 1
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.vocab; i += int64_t{gridDim.x} * blockDim.x) {
    const uint64_t key = p.keys[i];
    largest = max(largest, key);
    candidates += key != 0 ? 1 : 0;
  }
  largest = warp_reduce(largest, [](uint64_t a, uint64_t b) { return max(a, b); });
  candidates = warp_reduce(candidates, Sum{});
  if (threadIdx.x % 32 != 0) return;
  atomicMax(reinterpret_cast<unsigned long long*>(&p.result->largest), static_cast<unsigned long long>(largest));
  atomicAdd(reinterpret_cast<unsigned long long*>(&p.result->candidates), static_cast<unsigned long long>(candidates));
}

BL_CUDA_SAMPLE_KERNEL(sample_mass, bitloom::cuda::kSampleThreads) {
  using namespace bitloom::cuda;
  __shared__ double shared[32];
  const float largest = logit_of(p.result->largest);
  const int64_t first = int64_t{blockIdx.x} * kMassTokens, end = min(first + kMassTokens, p.vocab);
  double sum = 0;
#pragma unroll 1
  for (int64_t i = first + threadIdx.x; i < end; i += blockDim.x) {
    const uint64_t key = p.keys[i];
    if (key != 0) sum += weight_of(key, largest, p.temperature);
  }
  sum = block_reduce(sum, 0.0, Sum{}, shared);
  if (threadIdx.x == 0) p.masses[blockIdx.x] = sum;
}

BL_CUDA_SAMPLE_KERNEL(sample_pick, bitloom::cuda::kPickThreads) {
  using namespace bitloom::cuda;
  __shared__ PickShared shared;
  pick(p, shared);
}
