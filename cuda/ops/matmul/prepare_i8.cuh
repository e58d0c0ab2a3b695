// a to int8, with the CPU's bits (pack_activations_i8 of native/ops/matmul/scalar.cc, quantize_group of activations.cc),
// and what products need of its groups.
#pragma once

#include "config_i8.h"
#include "prepare.cuh"

namespace bitloom::cuda::gemm {

constexpr float kLargestFloat = 3.4028234664e38f;

// Scale and inverse of values whose largest magnitude is `largest`, infinite if one of them is not finite.
struct Rounding {
  float scale, inverse;
  __device__ __forceinline__ Rounding(float largest, float levels) {
    // Below 127 * FLT_MIN the reciprocal overflows; such a group counts as zero.
    const bool some = largest >= 1.5e-36f && largest <= kLargestFloat;
    inverse = some ? levels / largest : 0;
    scale = some ? largest / levels : largest <= kLargestFloat ? 0 : __uint_as_float(0x7fc00000u);
  }
  __device__ __forceinline__ int code(float x) const {
    if (inverse == 0) return 0;
    return static_cast<int>(rintf(fminf(fmaxf(x * inverse, -127.0f), 127.0f)));
  }
};

__device__ __forceinline__ float magnitude(float x) {
  x = fabsf(x);
  return x <= kLargestFloat ? x : __uint_as_float(0x7f800000u);
}

// What is to be known of 32 columns of a row: the lane's code, the scale and the codes' sum.
struct Group {
  int code, sum;
  float scale;
};

__device__ __forceinline__ Group round_group(const IntegerRowsParams& p, const Rounding& row, int m, int q) {
  const int k = 32 * q + threadIdx.x % 32;
  const bool there = m < p.from.m && k < p.from.k;
  Group g{0, 0, row.scale};
  if (p.a_is_codes) {
    if (there) {
      const int column = p.from.column_order != nullptr
                             ? min(max(p.from.column_order[k], 0), p.from.a_columns - 1)
                             : k;
      // Never below -127, which the CPU refuses and nothing looks for here.
      g.code = max(static_cast<int>(static_cast<const int8_t*>(p.from.a)[m * p.from.a_row + column * p.from.a_column]), -127);
    }
    if (!p.scale_per_row) {
      const bool any = m < p.from.m && 32 * q < p.from.k;
      g.scale = any ? p.from.a_scales[m * p.from.scales_row + q * p.from.scales_column] : 0;
    }
  } else {
    const float x = there ? activation_at(p.from, m, k) : 0;
    if (p.scale_per_row) {
      g.code = row.code(x);
    } else {
      float largest = magnitude(x);
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, distance));
      }
      const Rounding own(largest, p.levels);
      g.code = own.code(x);
      g.scale = own.scale;
    }
  }
  g.sum = __reduce_add_sync(~0u, g.code);
  return g;
}

// The scale of a whole row.
__device__ __forceinline__ Rounding round_row(const IntegerRowsParams& p, int m, float* shared) {
  float largest = 0;
  if (p.scale_per_row && !p.a_is_codes && m < p.from.m) {
    for (int k = threadIdx.x; k < p.from.k; k += kPrepareThreads) {
      largest = fmaxf(largest, magnitude(activation_at(p.from, m, k)));
    }
    largest = block_max(largest, shared);
  }
  Rounding row(largest, p.levels);
  if (p.scale_per_row && p.a_is_codes) row.scale = m < p.from.m ? p.from.a_scales[m * p.from.scales_row] : 0;
  return row;
}

// A block per row; a warp takes 128 columns at a time.
__device__ __forceinline__ void integer_rows(const IntegerRowsParams& p) {
  __shared__ float shared[kPrepareThreads / 32];
  __shared__ int sums[kPrepareThreads / 32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Steps steps = static_cast<Steps>(p.steps);
  if (blockIdx.x == 0 && threadIdx.x < 2) p.ones[threadIdx.x] = 1;
  for (int m = blockIdx.x; m < p.rows; m += gridDim.x) {
    const Rounding row = round_row(p, m, shared);
    int row_sum = 0;
    for (int stage = warp; stage < p.units / 2; stage += kPrepareThreads / 32) {
      int stage_sum = 0;
      for (int q = 4 * stage; q < 4 * stage + 4; ++q) {
        const Group g = round_group(p, row, m, q);
        stage_sum += g.sum;
        if (m < p.from.m) {
          const int place = p.places >> 4 * (lane % 8) & 7;
          p.codes[(static_cast<int64_t>(m) * p.units + q / 2) * 64 + lane / 8 * 16 + q % 2 * 8 + place] =
              static_cast<int8_t>(g.code);
        }
        if (steps == Steps::fine && lane == 0) {
          const int64_t at = ((static_cast<int64_t>(q / 2) * (p.rows / 2) + m / 2) * 2 + q % 2) * 2 + m % 2;
          const float sum = static_cast<float>(g.sum);
          p.sides[at] = g.scale;
          p.sides[at + p.side_stride] = g.scale * sum;
          p.sides[at + 2 * p.side_stride] = kMagic + p.zero * sum;  // exact
        }
      }
      if (steps == Steps::coarse && lane == 0) {
        p.sides[static_cast<int64_t>(stage) * p.rows + m] = static_cast<float>(stage_sum);
      }
      row_sum += stage_sum;
    }
    if (steps == Steps::fine || m >= p.from.m) continue;
    if (threadIdx.x == 0) p.row_scales[m] = row.scale;
    if (steps != Steps::whole) continue;
    if (lane == 0) sums[warp] = row_sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      int sum = 0;
      for (int i = 0; i < kPrepareThreads / 32; ++i) sum += sums[i];
      p.row_sums[m] = sum;
    }
    __syncthreads();
  }
}

}  // namespace bitloom::cuda::gemm
