// Sums and maxima over a warp and a block: always the same order, and every thread gets the same bits.
#pragma once

#include <cstdint>

namespace bitloom::cuda {

struct Sum {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
// NaN is passed over, as by fmaxf.
struct Max {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// All 32 lanes take part. `width`: over groups of so many neighbours, a power of two.
template <typename T, typename Op>
__device__ __forceinline__ T warp_reduce(T value, Op op, int width = 32) {
  for (int lanes = width / 2; lanes > 0; lanes /= 2) value = op(value, __shfl_xor_sync(~0u, value, lanes));
  return value;
}

// All threads of a one-dimensional block of whole warps, at most 32 of them, take part. `shared`: [32]; may be used
// again at once.
template <typename T, typename Op>
__device__ __forceinline__ T block_reduce(T value, T identity, Op op, T* shared) {
  const uint32_t warps = blockDim.x / 32, lane = threadIdx.x % 32;
  value = warp_reduce(value, op);
  if (warps == 1) return value;
  __syncthreads();  // what an earlier call left has been read
  if (lane == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_reduce(lane < warps ? shared[lane] : identity, op);
}

}  // namespace bitloom::cuda
