// Products whose integers are summed over all of K: one scale of the row of a, one of the row of b.
#pragma once

#include "../../tile/integer_codes.cuh"
#include "../../tile/integer_scale.cuh"
#include "config_i8.h"
#include "epilogue.cuh"

namespace bitloom::cuda::gemm {

// From what the mma summed up.
template <bool kCentred>
__device__ __forceinline__ float whole_product(const FragmentWeights& b, const float* row_scales, const int32_t* row_sums,
                                               int32_t sum, int times, int m, int n) {
  const char* record = static_cast<const char*>(b.records) + n / 16 * b.tile_records;
  const int place = 2 * (n % 8) + n / 8 % 2;
  GroupBits<1> bits{};
  bits.scale[0] = reinterpret_cast<const uint16_t*>(record)[place];
  if (b.second != Second::none) bits.second[0] = reinterpret_cast<const uint16_t*>(record + b.second_offset)[place];
  float scale[1], offset[1];
  integer_scales<kCentred>(b, bits, scale, offset);
  const float row_scale = row_scales[m];
  // The decoder's factor is taken back by the scale.
  // Added to 0, as the CPU does, which makes a zero +0.
  const float product = fmaf(static_cast<float>(sum >> times), scale[0] * static_cast<float>(1 << times) * row_scale, 0.0f);
  if (kCentred || b.second == Second::none) return product;
  return fmaf(offset[0], row_scale * static_cast<float>(row_sums[m]), product);
}

__device__ __forceinline__ void collect(const CollectParams& p) {
  const int64_t count = static_cast<int64_t>(p.m) * p.n;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    int32_t sum = 0;
    for (int split = 0; split < p.splits; ++split) sum += static_cast<const int32_t*>(p.partial)[split * count + i];
    const int m = static_cast<int>(i / p.n), n = static_cast<int>(i % p.n);
    static_cast<float*>(p.partial)[i] = whole_product<false>(p.b, p.row_scales, p.row_sums, sum, p.times, m, n);
  }
}

}  // namespace bitloom::cuda::gemm
