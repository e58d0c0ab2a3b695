// Small kernels around the products: a to f16, weights of rare formats to f16 fragments, low-rank activations.
#pragma once

#include "../../../native/formats/fragments_place.h"
#include "../../tile/elements.cuh"
#include "../../tile/group_scale.cuh"
#include "../../tile/reduce.cuh"
#include "config.h"

namespace bitloom::cuda::gemm {

constexpr int kPrepareThreads = 256;

// The largest of a block's values. `shared`: [kPrepareThreads / 32].
__device__ __forceinline__ float block_max(float value, float* shared) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(~0u, value, distance));
  }
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  for (int i = 0; i < kPrepareThreads / 32; ++i) value = fmaxf(value, shared[i]);
  __syncthreads();
  return value;
}

__device__ __forceinline__ float activation_at(const PrepareParams& p, int m, int k) {
  int column = p.column_order != nullptr ? p.column_order[k] : k;
  column = min(max(column, 0), p.a_columns - 1);  // checked on the host when it can be
  float x = load_as_f32(p.a_dtype, p.a, m * p.a_row + column * p.a_column);
  if (p.a_scales != nullptr) {
    const int64_t group = p.scale_columns == 0 ? 0 : column / p.scale_columns;
    x *= p.a_scales[m * p.scales_row + group * p.scales_column];
  }
  return p.column_scale != nullptr ? x * p.column_scale[column] : x;
}

// 2^e that brings the row's largest finite magnitude into [2^14, 2^15), and the other way into row_factors.
__device__ __forceinline__ float row_factor(const PrepareParams& p, int m, float largest) {
  // Exponent of the largest; subnormal rows stay near zero, where no power of f32 would bring them up.
  const int exponent = max(static_cast<int>(__float_as_uint(largest) >> 23), 16);
  const int shift = min(141 - exponent, 126);
  if (threadIdx.x == 0) p.row_factors[m] = __uint_as_float(static_cast<uint32_t>(127 - shift) << 23);
  return __uint_as_float(static_cast<uint32_t>(127 + shift) << 23);
}
__device__ __forceinline__ float finite_magnitude(float x) { return fabsf(x) <= 3.4028234664e38f ? fabsf(x) : 0; }

// A block per row: x * 2^e in f16; without row_factors x.
__device__ __forceinline__ void prepare_row(const PrepareParams& p) {
  __shared__ float shared[kPrepareThreads / 32];
  for (int m = blockIdx.x; m < p.m; m += gridDim.x) {
    float factor = 1;
    if (p.row_factors != nullptr) {
      float largest = 0;
      for (int k = threadIdx.x; k < p.k; k += kPrepareThreads) {
        largest = fmaxf(largest, finite_magnitude(activation_at(p, m, k)));
      }
      factor = row_factor(p, m, block_max(largest, shared));
    }
    uint16_t* out = static_cast<uint16_t*>(p.out) + static_cast<int64_t>(m) * p.padded_k;
    for (int k = threadIdx.x; k < p.padded_k; k += kPrepareThreads) {
      store_from_f32(p.out_dtype, out, k, k < p.k ? activation_at(p, m, k) * factor : 0);
    }
  }
}

// The same of rows of f32 at 16 bytes, to f16 and with row_factors: each thread keeps its part of a row in registers, read at
// once. A step of a decoder waits for this before each of its products.
__device__ __forceinline__ void prepare_wide_row(const PrepareParams& p) {
  __shared__ float shared[32];
  for (int m = blockIdx.x; m < p.m; m += gridDim.x) {
    const float4* row = reinterpret_cast<const float4*>(static_cast<const float*>(p.a) + m * p.a_row);
    float4 x[kPrepareVectors];
    float largest = 0;
#pragma unroll
    for (int i = 0; i < kPrepareVectors; ++i) {
      const int v = threadIdx.x + i * blockDim.x;
      x[i] = 4 * v < p.k ? row[v] : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < kPrepareVectors; ++i) {
      largest = fmaxf(largest, fmaxf(fmaxf(finite_magnitude(x[i].x), finite_magnitude(x[i].y)),
                                     fmaxf(finite_magnitude(x[i].z), finite_magnitude(x[i].w))));
    }
    const float factor = row_factor(p, m, block_reduce(largest, 0.0f, Max{}, shared));
    uint2* out = reinterpret_cast<uint2*>(static_cast<uint16_t*>(p.out) + static_cast<int64_t>(m) * p.padded_k);
#pragma unroll
    for (int i = 0; i < kPrepareVectors; ++i) {
      const int v = threadIdx.x + i * blockDim.x;
      if (4 * v >= p.padded_k) continue;
      const auto pair = [&](float low, float high) { return ptx::f16x2_of(low * factor, high * factor); };
      out[v] = make_uint2(pair(x[i].x, x[i].y), pair(x[i].z, x[i].w));
    }
  }
}

__device__ __forceinline__ float half_value(int type, uint32_t bits) {
  return type == kScaleBf16 ? __uint_as_float(bits << 16) : ptx::f32_of_f16(static_cast<uint16_t>(bits));
}

// Weight (row, k) of a unit in a format of any kind, times unit.
__device__ __forceinline__ float any_weight(const UnpackParams& p, const char* unit, int64_t tile, int row,
                                            int64_t unit_index, int k) {
  const FragmentWeights& b = p.from;
  const int lane = 4 * (row % 8) + k % 32 / 8, step = 2 * (k / 32) + k % 8 / 4;
  const float unit_factor = b.header[0];
  if (p.kind >= static_cast<int>(UnpackKind::bf16)) {
    const int index = ((step * 32 + lane) * 2 + row / 8) * 4 + k % 4;
    if (p.kind == static_cast<int>(UnpackKind::f32)) return reinterpret_cast<const float*>(unit)[index] * unit_factor;
    return __uint_as_float(static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(unit)[index]) << 16) * unit_factor;
  }
  // Tables of floats: pairs side by side, scales of 2 bytes.
  const int pair = 2 * (row / 8) + k % 4 / 2, half = k % 2;
  uint32_t code = 0;
  int at = 0;
  for (int plane = 8, shift = 0; plane > 0; plane /= 2) {
    if ((p.bits & plane) == 0) continue;
    const PairPlace place = table_pair_place(plane, step, pair);
    const uint32_t word =
        reinterpret_cast<const uint32_t*>(unit)[32 * at + plane_word(plane, lane, place.word)];
    const int bit = place.bit + half * plane;
    code |= (word >> bit & ((1u << plane) - 1)) << shift;
    shift += plane;
    at += plane;
  }
  const int64_t group = b.group_shift >= 31 ? 0 : (unit_index * 64 + k) >> b.group_shift;
  const char* record = static_cast<const char*>(b.records) + tile * b.tile_records + group * b.record_bytes;
  const int place = 2 * (row % 8) + row / 8;
  if (p.kind == static_cast<int>(UnpackKind::row_table)) {
    return half_value(b.scale_type, reinterpret_cast<const uint16_t*>(record)[16 * code + place]) * unit_factor;
  }
  const float scale = half_value(b.scale_type, reinterpret_cast<const uint16_t*>(record)[place]);
  uint32_t number = 0;
  if (b.second == Second::table_number) {
    number = min(reinterpret_cast<const uint8_t*>(record)[b.second_offset + place], static_cast<uint32_t>(b.tables) - 1);
  }
  return scale * p.entries[(number << p.bits) + code] * unit_factor;
}

// A block per unit: f16 fragments.
__device__ __forceinline__ void unpack_unit(const UnpackParams& p) {
  const int64_t count = static_cast<int64_t>(p.from.row_tiles) * p.from.units;
  for (int64_t index = blockIdx.x; index < count; index += gridDim.x) {
    const int64_t tile = index / p.from.units, unit_index = index % p.from.units;
    const char* unit = static_cast<const char*>(p.from.codes) + tile * p.from.tile_codes + unit_index * p.from.unit_bytes;
    uint16_t* to = static_cast<uint16_t*>(p.to) + index * 1024;
    for (int i = threadIdx.x; i < 1024; i += kPrepareThreads) {
      const int lane = i / 8 % 32, step = i / 256, row = lane / 4 + i / 4 % 2 * 8;
      const int k = 32 * (step / 2) + 8 * (lane % 4) + 4 * (step % 2) + i % 4;
      store_from_f32(BL_DTYPE_f16, to, i, any_weight(p, unit, tile, row, unit_index, k));
    }
  }
}

// A warp per (row of a, rank).
__device__ __forceinline__ void low_rank(const LowRankParams& p) {
  const int64_t count = static_cast<int64_t>(p.m) * p.rank;
  const int lane = threadIdx.x % 32;
  for (int64_t i = blockIdx.x * 8 + threadIdx.x / 32; i < count; i += gridDim.x * 8) {
    const int64_t m = i / p.rank, r = i % p.rank;
    const int64_t id = p.ids != nullptr ? p.ids[m] : 0;
    if (id < 0 || id >= p.adapters) continue;  // the row has none, and nobody reads `low`
    float sum = 0;
    for (int k = lane; k < p.k; k += 32) {
      float x = load_as_f32(p.a_dtype, p.a, m * p.a_row + k * p.a_column);
      if (p.a_scales != nullptr) {
        x *= p.a_scales[m * p.scales_row + (p.scale_columns == 0 ? 0 : k / p.scale_columns) * p.scales_column];
      }
      sum = fmaf(x, load_float(p.down_dtype, p.down, id * p.down_adapter + r * p.down_row + k * p.down_column), sum);
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    if (lane == 0) p.low[i] = sum;
  }
}

}  // namespace bitloom::cuda::gemm
