// Up to 16 rows of a: weights go from memory straight to registers, each warp a unit of 16 rows at a time. A block has one
// row tile of b; its warps take turns at the units, so that neighbours read what lies side by side, and their sums are
// added in a fixed order.
#pragma once

#include "../../ptx/mma.cuh"
#include "../../tile/group_scale.cuh"
#include "epilogue.cuh"

namespace bitloom::cuda::gemm {

template <class Codes>
struct StreamTile {
  static constexpr int kUnitBytes = 128 * Codes::kWords;
  // Units of a lane that are under way together: 64 bytes of codes, where registers allow.
  static constexpr int kDepth = Codes::kWords >= 16 ? 1 : Codes::kWords > 4 ? 2 : 4;
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
    const bool bytes = has_byte_scales(p.b);
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
      if (p.b.second != Second::none) {
        r.second[half] = load_two(record + p.b.second_offset, bytes || p.b.second == Second::table_number);
      }
    }
    if (p.b.super_bytes == 0) return;
    const char* super = supers + static_cast<int64_t>(unit >> p.b.super_shift) * p.b.super_bytes;
    r.super_scale = load_two(super, false);
    if (p.b.second == Second::sub_min) r.super_min = load_two(super + 32, false);
  }

  __device__ __forceinline__ GroupScale scale_of(const Records& r, int half, int column, float unit_factor) const {
    if constexpr (!kScaled) return {0, 0, 0};
    const auto part = [&](uint32_t two) { return column == 0 ? two & 0xffff : two >> 16; };
    GroupScale g = group_scale<Codes>(
        p.b, unit_factor, {part(r.scale[half]), part(r.second[half]), part(r.super_scale), part(r.super_min)});
    if (Codes::kTable) g.offset += table_copy(lane);
    return g;
  }

  // Eight activations of a row from column k on; rows and columns that are not there are zero.
  __device__ __forceinline__ uint4 load_row(int m, int k) const {
    if (m >= p.m || k >= p.k) return make_uint4(0, 0, 0, 0);
    return *reinterpret_cast<const uint4*>(static_cast<const char*>(p.a) + m * p.a_row_bytes + k * 2);
  }

  __device__ __forceinline__ void multiply(const Codes& decode, const uint32_t (&words)[Codes::kWords],
                                           const Records& r, int unit, float unit_factor, float (&acc)[2][4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int k = unit * 64 + 32 * half + 8 * (lane % 4);
      const uint4 upper = load_row(lane / 4, k), lower = load_row(lane / 4 + 8, k);
      const uint32_t a[2][4] = {{upper.x, lower.x, upper.y, lower.y}, {upper.z, lower.z, upper.w, lower.w}};
#pragma unroll
      for (int column = 0; column < 2; ++column) {
        const GroupScale g = scale_of(r, half, column, unit_factor);
#pragma unroll
        for (int u = 0; u < 2; ++u) {
          const int step = 2 * half + u;
          ptx::mma_m16n8k16_f16(acc[column], a[u], decode.pair(words, step, 2 * column, g),
                                decode.pair(words, step, 2 * column + 1, g));
        }
      }
    }
  }

  __device__ __forceinline__ void accumulate(float (&acc)[2][4]) const {
    const int begin = static_cast<int>(static_cast<int64_t>(p.b.units) * blockIdx.y / p.splits);
    const int end = static_cast<int>(static_cast<int64_t>(p.b.units) * (blockIdx.y + 1) / p.splits);
    const float unit_factor = p.b.header[0];
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

  // The warps' sums, [warps][16 rows][16 columns], added in order by a thread per output.
  __device__ __forceinline__ void store(const float (&acc)[2][4]) const {
    float* sums = reinterpret_cast<float*>(shared_memory);
    __syncthreads();  // tables lie there
    float* own = sums + warp * 256 + lane / 4 * 16 + 2 * (lane % 4);
#pragma unroll
    for (int column = 0; column < 2; ++column) {
      *reinterpret_cast<float2*>(own + 8 * column) = make_float2(acc[column][0], acc[column][1]);
      *reinterpret_cast<float2*>(own + 128 + 8 * column) = make_float2(acc[column][2], acc[column][3]);
    }
    __syncthreads();
    for (int i = warp * 32 + lane; i < 16 * p.m; i += 32 * warps) {
      const int m = i / 16, n = blockIdx.x * 16 + i % 16;
      if (n >= p.n) continue;
      float product = 0;
      for (int w = 0; w < warps; ++w) product += sums[w * 256 + i];
      if (p.partial != nullptr) {
        p.partial[(static_cast<int64_t>(blockIdx.y) * p.m + m) * p.n + n] = product;
      } else {
        store_product(p.epilogue, product, m, n);
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
