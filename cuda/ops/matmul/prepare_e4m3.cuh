// Compute e4m3: a rounded to it, as bf16 or f16, which hold the codes, for kernels without products of fp8; or as bytes.
#pragma once

#include "../../tile/round_e4m3.cuh"
#include "config_i8.h"
#include "prepare.cuh"

namespace bitloom::cuda::gemm {

// What a block knows of its row.
struct RowSizes {
  float largest;         // infinite if a value is not finite
  float largest_finite;
};

__device__ __forceinline__ RowSizes row_sizes(const PrepareParams& p, int m, float* shared) {
  RowSizes row{0, 0};
  if (m < p.m) {
    for (int k = threadIdx.x; k < p.k; k += kPrepareThreads) {
      const float size = size_or_infinite(activation_at(p, m, k));
      row.largest = fmaxf(row.largest, size);
      if (size <= kMostFloat) row.largest_finite = fmaxf(row.largest_finite, size);
    }
  }
  row.largest = block_max(row.largest, shared);
  row.largest_finite = block_max(row.largest_finite, shared);
  return row;
}

// A block per row. A scale per row: codes, and row_factors has the scale. A scale per 32: in bf16 the numbers; in f16
// these times a power of two as in prepare_row, where what is below 2^-24 is rounded once more.
__device__ __forceinline__ void prepare_e4m3_row(const PrepareParams& p) {
  __shared__ float shared[kPrepareThreads / 32];
  const bool per_row = p.rounding == Rounding8::row;
  for (int m = blockIdx.x; m < p.m; m += gridDim.x) {
    Fp8Scale scale{1, 1};
    float factor = 1;
    if (p.row_factors != nullptr) {
      const RowSizes row = row_sizes(p, m, shared);
      scale = Fp8Scale::of_row(row.largest);
      const int exponent = max(static_cast<int>(__float_as_uint(row.largest_finite) >> 23), 16);
      const int shift = min(141 - exponent, 126);
      if (!per_row) factor = __uint_as_float(static_cast<uint32_t>(127 + shift) << 23);
      if (threadIdx.x == 0) {
        p.row_factors[m] = per_row ? scale.scale : __uint_as_float(static_cast<uint32_t>(127 - shift) << 23);
      }
    }
    uint16_t* out = static_cast<uint16_t*>(p.out) + static_cast<int64_t>(m) * p.padded_k;
    for (int k = threadIdx.x; k < p.padded_k; k += kPrepareThreads) {  // padded_k: whole warps
      const float x = k < p.k ? activation_at(p, m, k) : 0;
      if (!per_row) scale = Fp8Scale::of_group(warp_largest(size_or_infinite(x)));
      const float code = e4m3_of(scale.code(x));
      store_from_f32(p.out_dtype, out, k, per_row ? code : code * scale.scale * factor);
    }
  }
}

// A block per row, a warp per 128 columns: codes in the order of the weights' decoder, and scales per 32 (Steps::fine).
__device__ __forceinline__ void fp8_rows(const IntegerRowsParams& p) {
  __shared__ float shared[kPrepareThreads / 32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (blockIdx.x == 0 && threadIdx.x < 2) p.ones[threadIdx.x] = 1;
  for (int m = blockIdx.x; m < p.rows; m += gridDim.x) {
    Fp8Scale scale{0, 0};
    if (p.scale_per_row) scale = Fp8Scale::of_row(row_sizes(p.from, m, shared).largest);
    if (p.scale_per_row && threadIdx.x == 0 && m < p.from.m) p.row_scales[m] = scale.scale;
    for (int stage = warp; stage < p.units / 2; stage += kPrepareThreads / 32) {
      for (int q = 4 * stage; q < 4 * stage + 4; ++q) {
        const int k = 32 * q + lane;
        const float x = m < p.from.m && k < p.from.k ? activation_at(p.from, m, k) : 0;
        if (!p.scale_per_row) scale = Fp8Scale::of_group(warp_largest(size_or_infinite(x)));
        if (m < p.from.m) {
          const int place = p.places >> 4 * (lane % 8) & 7;
          p.codes[(static_cast<int64_t>(m) * p.units + q / 2) * 64 + lane / 8 * 16 + q % 2 * 8 + place] =
              static_cast<int8_t>(scale.code(x));
        }
        if (static_cast<Steps>(p.steps) == Steps::fine && lane == 0) {
          p.sides[((static_cast<int64_t>(q / 2) * (p.rows / 2) + m / 2) * 2 + q % 2) * 2 + m % 2] = scale.scale;
        }
      }
    }
  }
}

}  // namespace bitloom::cuda::gemm
