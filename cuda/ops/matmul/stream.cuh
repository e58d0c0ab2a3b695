// Up to 16 rows of a: weights go from memory straight to registers, each warp a unit of 16 rows at a time. A block has one
// row tile of b; its warps take turns at the units, so that neighbours read what lies side by side, and their sums are
// added in a fixed order.
#pragma once

#include "../../tile/group_scale.cuh"
#include "../../tile/scaled_sums.cuh"
#include "epilogue.cuh"

namespace bitloom::cuda::gemm {

template <class Codes>
struct StreamTile {
  static constexpr int kUnitBytes = 128 * Codes::kWords;
  // Units of a lane that are under way together.
  static constexpr int kDepth = stream_depth(Codes::kWords, Codes::kPlainScale);
  static constexpr bool kScaled = Codes::kWords != 16;

  const ProductParams& p;
  int lane, warp, warps;
  const char *codes, *records, *supers;  // of the row tile

  struct Records {
    uint32_t scale[2], second[2];  // of both halves of a unit; low and high part: rows g and g + 8
    uint32_t super_scale, super_min;
  };

  __device__ __forceinline__ StreamTile(const ProductParams& params) : p(params) {
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
    const bool bytes = Codes::kByteScales || (!Codes::kPlainScale && has_byte_scales(p.b));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (half == 1 && p.b.group_shift >= 6) {
        r.scale[1] = r.scale[0], r.second[1] = r.second[0];
        break;
      }
      const int k = unit * 64 + 32 * half + 8 * (lane % 4);
      const char* record =
          records + static_cast<int64_t>(p.b.group_shift >= 31 ? 0 : k >> p.b.group_shift) * p.b.record_bytes;
      r.scale[half] = load_two(record, bytes);
      if (!Codes::kPlainScale && p.b.second != Second::none) {
        r.second[half] = load_two(record + p.b.second_offset, bytes || p.b.second == Second::table_number);
      }
    }
    if (Codes::kPlainScale || p.b.super_bytes == 0) return;
    const char* super = supers + static_cast<int64_t>(unit >> p.b.super_shift) * p.b.super_bytes;
    r.super_scale = load_two(super, false);
    if (p.b.second == Second::sub_min) r.super_min = load_two(super + 32, false);
  }

  // Of both halves of a unit, rows g and g + 8.
  __device__ __forceinline__ void scales_of(const Records& r, float unit_factor, GroupScale (&g)[2][2]) const {
    if constexpr (!kScaled) return;
    GroupBits<4> bits;
    GroupScale four[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto part = [&](uint32_t two) { return i % 2 == 0 ? two & 0xffff : two >> 16; };
      bits.scale[i] = part(r.scale[i / 2]);
      bits.second[i] = part(r.second[i / 2]);
      bits.super_scale[i] = part(r.super_scale);
      bits.super_min[i] = part(r.super_min);
    }
    group_scales<Codes>(p.b, unit_factor, bits, four);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      g[i / 2][i % 2] = four[i];
      g[i / 2][i % 2].offset += table_copy<Codes>(lane);
    }
  }

  // Eight activations of a row from column k on; rows and columns that are not there are zero.
  __device__ __forceinline__ uint4 load_row(int m, int k) const {
    if (m >= p.m || k >= p.k) return make_uint4(0, 0, 0, 0);
    return *reinterpret_cast<const uint4*>(static_cast<const char*>(p.a) + m * p.a_row_bytes + k * 2);
  }

  __device__ __forceinline__ void multiply(const Codes& decode, const uint32_t (&words)[Codes::kWords],
                                           const Records& r, int unit, float unit_factor, float (&acc)[2][4]) const {
    GroupScale g[2][2] = {};
    scales_of(r, unit_factor, g);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sums[2][4] = {};
      float(&to)[2][4] = Codes::kScalesSums ? sums : acc;
      const int k = unit * 64 + 32 * half + 8 * (lane % 4);
      const uint4 x = load_row(lane / 4, k);
      uint32_t weights[2][4];
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        decode_step(decode, words, 2 * half + u, g[half], weights[u]);
        mma_step<Codes>(to[0], weights[u], u == 0 ? x.x : x.z, u == 0 ? x.y : x.w);
      }
      if (Codes::kScalesSums) add_scaled(acc[0], sums[0], g[half]);
      if (p.m <= 8) continue;
      const uint4 y = load_row(lane / 4 + 8, k);
      mma_step<Codes>(to[1], weights[0], y.x, y.y);
      mma_step<Codes>(to[1], weights[1], y.z, y.w);
      if (Codes::kScalesSums) add_scaled(acc[1], sums[1], g[half]);
    }
  }

  __device__ __forceinline__ void accumulate(float (&acc)[2][4]) const {
    const int begin = static_cast<int>(p.b.units * blockIdx.y / p.splits);
    const int end = static_cast<int>(p.b.units * (blockIdx.y + 1) / p.splits);
    const float unit_factor = Codes::kBf16 ? 1 : p.b.header[0];
    const Codes decode(p.b.zero, p.b.exponent_shift);
#pragma unroll 1
    for (int first = begin + warp; first < end; first += kDepth * warps) {
      uint32_t words[kDepth][Codes::kWords];
      Records r[kDepth] = {};
#pragma unroll
      for (int i = 0; i < kDepth; ++i) {
        const int unit = first + i * warps;
        if (unit >= end) break;
        load_words<Codes::kWords>(words[i], codes + static_cast<int64_t>(unit) * kUnitBytes, lane);
        if (kScaled) load_records(r[i], unit);
      }
#pragma unroll
      for (int i = 0; i < kDepth; ++i) {
        const int unit = first + i * warps;
        if (unit >= end) break;
        multiply(decode, words[i], r[i], unit, unit_factor, acc);
      }
    }
  }

  // The warps' sums, [warps][16 rows of a][16 rows of b], added in order by a thread per output.
  __device__ __forceinline__ void store(const float (&acc)[2][4]) const {
    float* sums = reinterpret_cast<float*>(shared_memory);
    if (Codes::kTable) __syncthreads();  // tables lie there
    float* own = sums + warp * (kStreamWarpBytes / 4) + 2 * (lane % 4) * kStreamStride + lane / 4;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      float* at = own + part * 8 * kStreamStride;
      at[0] = acc[part][0];
      at[kStreamStride] = acc[part][1];
      at[8] = acc[part][2];
      at[kStreamStride + 8] = acc[part][3];
    }
    __syncthreads();
    for (int i = warp * 32 + lane; i < 16 * p.m; i += 32 * warps) {
      const int m = i / 16, n = blockIdx.x * 16 + i % 16;
      if (n >= p.n) continue;
      float product = 0;
      for (int w = 0; w < warps; ++w) {
        product += sums[w * (kStreamWarpBytes / 4) + m * kStreamStride + i % 16];
      }
      if (p.partial != nullptr) {
        p.partial[(static_cast<int64_t>(blockIdx.y) * p.m + m) * p.n + n] = product;
      } else {
        store_product<!Codes::kBf16>(p.epilogue, product, m, n);
      }
    }
  }

  __device__ __forceinline__ void run() {
    if constexpr (Codes::kTable) {
      Codes::fill(p.b.table, p.b.tables, warp * 32 + lane, warps * 32);
      __syncthreads();
    }
    float acc[2][4] = {};
    accumulate(acc);
    store(acc);
  }
};

}  // namespace bitloom::cuda::gemm
