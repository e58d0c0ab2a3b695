// Up to 16 rows of a in int8: the stream kernel (stream.cuh) by mma.m16n8k32.
#pragma once

#include <type_traits>

#include "product_sums.cuh"
#include "whole_i8.cuh"

namespace bitloom::cuda::gemm {

template <class Codes, bool kWhole>
struct IntegerStreamTile {
  static constexpr int kUnitBytes = 128 * Codes::kWords;
  static constexpr bool kCentred = Codes::kCentred;
  static constexpr int kDepth = integer_depth(Codes::kWords, kCentred);  // units of a lane under way together
  using Sum = std::conditional_t<kWhole, int32_t, float>;
  using Product = typename Codes::Product;
  using Sums = ProductSums<Product>;

  const IntegerParams& p;
  int lane, warp, warps;
  const char *codes, *records, *supers;  // of the row tile

  struct Records {
    uint32_t scale[2], second[2];  // of both halves of a unit; low and high part: rows g and g + 8
    uint32_t super_scale, super_min;
  };

  __device__ __forceinline__ IntegerStreamTile(const IntegerParams& params) : p(params) {
    lane = threadIdx.x;
    warp = threadIdx.y;
    warps = blockDim.y;
    const int64_t tile = blockIdx.x;
    codes = static_cast<const char*>(p.b.codes) + tile * p.b.tile_codes;
    records = static_cast<const char*>(p.b.records) + tile * p.b.tile_records;
    supers = static_cast<const char*>(p.b.supers) + tile * p.b.tile_supers;
  }

  // Two neighbouring entries of 1 or 2 bytes, in 16 bits each.
  __device__ __forceinline__ uint32_t load_two(const char* at, bool bytes) const {
    const int g = lane / 4;
    if (!bytes) return reinterpret_cast<const uint32_t*>(at)[g];
    const uint32_t two = reinterpret_cast<const uint16_t*>(at)[g];
    return (two & 0xff) | (two & 0xff00) << 8;
  }

  __device__ __forceinline__ void load_records(Records& r, int unit) const {
    const bool bytes = Codes::kByteScales || (!kCentred && has_byte_scales(p.b));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (half == 1 && p.b.group_shift >= 6) {
        r.scale[1] = r.scale[0], r.second[1] = r.second[0];
        break;
      }
      const int k = unit * 64 + 32 * half;
      const char* record =
          records + static_cast<int64_t>(p.b.group_shift >= 31 ? 0 : k >> p.b.group_shift) * p.b.record_bytes;
      r.scale[half] = load_two(record, bytes);
      if (!kCentred && p.b.second != Second::none) r.second[half] = load_two(record + p.b.second_offset, bytes);
    }
    if (kCentred || p.b.super_bytes == 0) return;
    const char* super = supers + static_cast<int64_t>(unit >> p.b.super_shift) * p.b.super_bytes;
    r.super_scale = load_two(super, false);
    if (p.b.second == Second::sub_min) r.super_min = load_two(super + 32, false);
  }

  // [2 half + side]
  __device__ __forceinline__ void scales_of(const Records& r, float (&scale)[4], float (&offset)[4]) const {
    GroupBits<4> bits;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto part = [&](uint32_t two) { return i % 2 == 0 ? two & 0xffff : two >> 16; };
      bits.scale[i] = part(r.scale[i / 2]);
      bits.second[i] = part(r.second[i / 2]);
      bits.super_scale[i] = part(r.super_scale);
      bits.super_min[i] = part(r.super_min);
    }
    integer_scales<kCentred>(p.b, bits, scale, offset);
  }

  // 8 columns of either half of a unit, of a row; rows that are not there are zero.
  __device__ __forceinline__ uint4 load_row(int m, int unit) const {
    if (m >= p.m) return make_uint4(0, 0, 0, 0);
    const int64_t at = static_cast<int64_t>(m) * p.stages * kStageDepth + unit * 64 + lane % 4 * 16;
    return *reinterpret_cast<const uint4*>(static_cast<const char*>(p.a) + at);
  }

  __device__ __forceinline__ void multiply(const uint32_t (&words)[Codes::kWords], const Records& r, int unit,
                                           Sum (&acc)[2][4]) const {
    float scale[4] = {}, offset[4] = {};
    if constexpr (!kWhole) scales_of(r, scale, offset);
    uint32_t a[2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) Codes::operand(words, half, p.value_shift, a[half]);
    const Product zero[4] = {Sums::first(), Sums::first(), Sums::first(), Sums::first()};
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      if (part == 1 && p.m <= 8) break;
      const uint4 x = load_row(8 * part + lane / 4, unit);
      if constexpr (kWhole) {
        Codes::multiply(acc[part], a[0], x.x, x.y, acc[part]);
        Codes::multiply(acc[part], a[1], x.z, x.w, acc[part]);
      } else {
        const float* side = p.sides + 2 * (static_cast<int64_t>(unit) * p.rows + 8 * part + 2 * (lane % 4));
        const auto of_rows = [&](int kind) { return *reinterpret_cast<const float4*>(side + kind * p.side_stride); };
        const float4 row_scales = of_rows(0);
        const float4 moments = kCentred ? row_scales : of_rows(1), starts = kCentred ? row_scales : of_rows(2);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float s[2] = {half == 0 ? row_scales.x : row_scales.z, half == 0 ? row_scales.y : row_scales.w};
          const float moment[2] = {half == 0 ? moments.x : moments.z, half == 0 ? moments.y : moments.w};
          const float start[2] = {half == 0 ? starts.x : starts.z, half == 0 ? starts.y : starts.w};
          Product d[4];
          Codes::multiply(d, a[half], half == 0 ? x.x : x.z, half == 0 ? x.y : x.w, zero);
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            const float value = Sums::value(d[j], kCentred ? kMagic : start[j % 2]);
            acc[part][j] = fmaf(value, scale[2 * half + j / 2] * s[j % 2], acc[part][j]);
            if (!kCentred) acc[part][j] = fmaf(offset[2 * half + j / 2], moment[j % 2], acc[part][j]);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void accumulate(Sum (&acc)[2][4]) const {
    const int begin = static_cast<int>(static_cast<int64_t>(p.b.units) * blockIdx.y / p.splits);
    const int end = static_cast<int>(static_cast<int64_t>(p.b.units) * (blockIdx.y + 1) / p.splits);
#pragma unroll 1
    for (int first = begin + warp; first < end; first += kDepth * warps) {
      uint32_t words[kDepth][Codes::kWords];
      Records r[kDepth] = {};
#pragma unroll
      for (int i = 0; i < kDepth; ++i) {
        const int unit = first + i * warps;
        if (unit >= end) break;
        load_words<Codes::kWords>(words[i], codes + static_cast<int64_t>(unit) * kUnitBytes, lane);
        if (!kWhole) load_records(r[i], unit);
      }
#pragma unroll
      for (int i = 0; i < kDepth; ++i) {
        const int unit = first + i * warps;
        if (unit >= end) break;
        multiply(words[i], r[i], unit, acc);
      }
    }
  }

  // The warps' sums, [warps][16 rows of a][16 rows of b], added in order by a thread per output.
  __device__ __forceinline__ void store(const Sum (&acc)[2][4]) const {
    Sum* sums = reinterpret_cast<Sum*>(shared_memory);
    Sum* own = sums + warp * (kStreamWarpBytes / 4) + 2 * (lane % 4) * kStreamStride + lane / 4;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      Sum* at = own + part * 8 * kStreamStride;
      at[0] = acc[part][0];
      at[kStreamStride] = acc[part][1];
      at[8] = acc[part][2];
      at[kStreamStride + 8] = acc[part][3];
    }
    __syncthreads();
    for (int i = warp * 32 + lane; i < 16 * p.m; i += 32 * warps) {
      const int m = i / 16, n = blockIdx.x * 16 + i % 16;
      if (n >= p.n) continue;
      Sum sum = 0;
      for (int w = 0; w < warps; ++w) sum += sums[w * (kStreamWarpBytes / 4) + m * kStreamStride + i % 16];
      if (p.partial != nullptr) {
        static_cast<Sum*>(p.partial)[(static_cast<int64_t>(blockIdx.y) * p.m + m) * p.n + n] = sum;
      } else if constexpr (kWhole) {
        store_product(p.epilogue, whole_product<kCentred>(p.b, p.row_scales, p.row_sums, sum, Codes::kTimes, m, n), m, n);
      } else {
        store_product(p.epilogue, sum, m, n);
      }
    }
  }

  __device__ __forceinline__ void run() {
    Sum acc[2][4] = {};
    accumulate(acc);
    store(acc);
  }
};

}  // namespace bitloom::cuda::gemm
