// Products of a step by what the codes are (f16 or bf16), and sums that take their group's scale afterwards.
#pragma once

#include "../ptx/mma.cuh"
#include "decode.cuh"

namespace bitloom::cuda {

template <class Codes>
__device__ __forceinline__ void mma_step(float (&acc)[4], const uint32_t (&weights)[4], uint32_t b0, uint32_t b1) {
  if constexpr (Codes::kBf16) {
    ptx::mma_m16n8k16_bf16(acc, weights, b0, b1);
  } else {
    ptx::mma_m16n8k16_f16(acc, weights, b0, b1);
  }
}

// acc += sum * scale of rows g and g + 8; the sum begins anew.
__device__ __forceinline__ void add_scaled(float (&acc)[4], float (&sum)[4], const GroupScale (&g)[2]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    acc[i] = fmaf(sum[i], __uint_as_float(g[i / 2].scale), acc[i]);
    sum[i] = 0;
  }
}

}  // namespace bitloom::cuda
