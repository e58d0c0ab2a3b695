// Up to 16 rows of a: weights go from memory straight to registers, each warp a unit of 16 rows at a time. A block has one
// row tile of b; its warps take turns at the units, so that neighbours read what lies side by side, and their sums are
// added in a fixed order.
#pragma once

#include "../../tile/group_scale.cuh"
#include "../../tile/scaled_sums.cuh"
#include "epilogue.cuh"

namespace bitloom::cuda::gemm {

// The codes as the stream kernel takes them.
template <class Codes>
struct StreamCodes {
  using Type = Codes;
};
template <int kBits>
struct StreamCodes<CentredCodes<kBits>> {
  using Type = CentredSums<kBits>;
};

// kTiles: of 8 rows of a.
template <class Codes, int kTiles>
struct StreamTile {
  static constexpr int kUnitBytes = 128 * Codes::kWords;
  // Units of a lane that are under way together.
  static constexpr int kDepth = stream_depth(Codes::kWords, Codes::kPlainScale);
  static constexpr bool kScaled = Codes::kWords != 16;
  // Of a lane in the first plane.
  static constexpr int kLaneBytes = lane_bytes(first_plane(Codes::kWords));
  // Whether weights are in b's unit.
  static constexpr bool kPrepared = !Codes::kBf16 && !Codes::kScalesSums;

  const ProductParams& p;
  int lane;
  uint32_t warp, warps, whole;  // units with all their columns
  // Of the row tile, and the lane's rows of a, from what the lane reads of a unit or group on.
  const char *codes, *records, *supers, *rows[kTiles];

  // As they lie: whatever is done to them would wait for them.
  struct Records {
    uint32_t scale[2], second[2];  // of both halves of a unit
    uint32_t super_scale, super_min;
  };

  struct Unit {
    uint32_t words[Codes::kWords];
    Records records;
    uint4 a[kTiles][2];
  };

  // In a register: the compiler would take it apart, and add its parts in every unit.
  static __device__ __forceinline__ const char* kept(const void* base, int64_t offset) {
    const char* address = static_cast<const char*>(base) + offset;
    asm("" : "+l"(address));
    return address;
  }

  __device__ __forceinline__ StreamTile(const ProductParams& params) : p(params) {
    lane = threadIdx.x;
    warp = __shfl_sync(0xffffffffu, threadIdx.y, 0);  // now known to be the same in all lanes
    warps = blockDim.y;
    whole = static_cast<uint32_t>(p.k) / 64;
    const int64_t tile = blockIdx.x;
    const int g = lane / 4;
    codes = kept(p.b.codes, tile * p.b.tile_codes + kLaneBytes * lane);
    records = kept(p.b.records, tile * p.b.tile_records + g * (has_bytes() ? 2 : 4));
    supers = kept(p.b.supers, tile * p.b.tile_supers + g * 4);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      // Sums of rows that are not there are not stored.
      const int64_t row = min(8 * i + g, p.m - 1);
      rows[i] = kept(p.a, row * p.a_row_bytes + 16 * (lane % 4));
    }
  }

  __device__ __forceinline__ bool has_bytes() const {
    return Codes::kByteScales || (!Codes::kPlainScale && has_byte_scales(p.b));
  }
  // Whether both halves of a unit have scales of their own.
  __device__ __forceinline__ bool is_fine() const { return p.b.group_shift < 6; }

  // Two neighbouring entries of 1 or 2 bytes: of rows g and g + 8.
  static __device__ __forceinline__ uint32_t load_two(const char* at, bool bytes) {
    return bytes ? __ldg(reinterpret_cast<const uint16_t*>(at)) : __ldg(reinterpret_cast<const uint32_t*>(at));
  }
  static __device__ __forceinline__ uint32_t entry(uint32_t two, bool bytes, int i) {
    if (bytes) return i == 0 ? two & 0xff : two >> 8;
    return i == 0 ? two & 0xffff : two >> 16;
  }
  // 32 bits times 32 bits: one instruction with the addition.
  static __device__ __forceinline__ const char* element(const char* base, uint32_t i, uint32_t bytes) {
    return base + static_cast<uint64_t>(i) * bytes;
  }

  __device__ __forceinline__ void load_records(Records& r, uint32_t unit) const {
    const bool bytes = has_bytes(), numbers = p.b.second == Second::table_number;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (half == 1 && !is_fine()) break;
      const uint32_t k = unit * 64 + 32 * half + 8 * (lane % 4);
      const char* record = element(records, k >> p.b.group_shift, p.b.record_bytes);
      r.scale[half] = load_two(record, bytes);
      if (!Codes::kPlainScale && p.b.second != Second::none) {
        // A table's number is a byte, whatever the scale.
        const char* second = record + p.b.second_offset - (numbers && !bytes ? lane / 4 * 2 : 0);
        r.second[half] = load_two(second, bytes || numbers);
      }
    }
    if (Codes::kPlainScale || p.b.super_bytes == 0) return;
    const char* super = element(supers, unit >> p.b.super_shift, p.b.super_bytes);
    r.super_scale = load_two(super, false);
    if (p.b.second == Second::sub_min) r.super_min = load_two(super + 32, false);
  }

  __device__ __forceinline__ void load(Unit& u, uint32_t unit) const {
    load_lane_words<LoadOnce>(u.words, element(codes, unit, kUnitBytes), lane);
    if (kScaled) load_records(u.records, unit);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const uint4* a = reinterpret_cast<const uint4*>(element(rows[i], unit, 128));
      if (unit < whole) {
        u.a[i][0] = __ldg(a);
        u.a[i][1] = __ldg(a + 4);
      } else {  // columns that are not there are zero
        const int columns = p.k - static_cast<int>(unit * 64 + 8 * (lane % 4));
        const uint4 zero = make_uint4(0, 0, 0, 0);
        u.a[i][0] = columns > 0 ? __ldg(a) : zero;
        u.a[i][1] = columns > 32 ? __ldg(a + 4) : zero;
      }
    }
  }

  // Of rows g and g + 8 in a half of a unit.
  __device__ __forceinline__ void scales_of(const Records& r, int half, float unit_factor, GroupScale (&g)[2]) const {
    const bool bytes = has_bytes();
    GroupBits<2> bits;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      bits.scale[i] = entry(r.scale[half], bytes, i);
      bits.second[i] = entry(r.second[half], bytes || p.b.second == Second::table_number, i);
      bits.super_scale[i] = entry(r.super_scale, false, i);
      bits.super_min[i] = entry(r.super_min, false, i);
    }
    group_scales<Codes>(p.b, unit_factor, bits, g);
#pragma unroll
    for (int i = 0; i < 2; ++i) g[i].offset += table_copy<Codes>(lane);
  }

  __device__ __forceinline__ void multiply(const Codes& decode, const Unit& u, float unit_factor,
                                           float (&acc)[kTiles][4]) const {
    GroupScale g[2] = {};
    float sums[kTiles][4] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (kScaled && (half == 0 || is_fine())) scales_of(u.records, half, unit_factor, g);
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        uint32_t weights[4];
        decode_step(decode, u.words, 2 * half + step, g, weights);
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          const uint4& a = u.a[i][half];
          mma_step<Codes>(Codes::kScalesSums ? sums[i] : acc[i], weights, step == 0 ? a.x : a.z, step == 0 ? a.y : a.w);
        }
      }
      if (Codes::kScalesSums && (half == 1 || is_fine())) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) add_scaled(acc[i], sums[i], g);
      }
    }
  }

  // A ring of units: as soon as one is multiplied, the loads of a later one take its registers. In the first turn
  // there is none to multiply.
  __device__ __forceinline__ void accumulate(float (&acc)[kTiles][4]) const {
    const uint32_t begin = p.b.units * blockIdx.y / p.splits, count = p.b.units * (blockIdx.y + 1) / p.splits - begin;
    const float unit_factor = kPrepared ? p.b.header[0] : 1;
    const Codes decode(p.b);
    const uint32_t turn = kDepth * warps;
    Unit ring[kDepth] = {};
#pragma unroll 1
    for (uint32_t next = warp; next < count + turn; next += turn) {
#pragma unroll
      for (int i = 0; i < kDepth; ++i) {
        const uint32_t ahead = next + i * warps;
        if (ahead - turn < count) multiply(decode, ring[i], unit_factor, acc);
        if (ahead < count) load(ring[i], begin + ahead);
      }
    }
  }

  // The warps' sums, [warps][16 rows of a][16 rows of b], added in order by a thread per output.
  __device__ __forceinline__ void store(const float (&acc)[kTiles][4]) const {
    float* sums = reinterpret_cast<float*>(shared_memory);
    if (Codes::kTable) __syncthreads();  // tables lie there
    float* own = sums + warp * (kStreamWarpBytes / 4) + 2 * (lane % 4) * kStreamStride + lane / 4;
#pragma unroll
    for (int part = 0; part < kTiles; ++part) {
      float* at = own + part * 8 * kStreamStride;
      at[0] = acc[part][0];
      at[kStreamStride] = acc[part][1];
      at[8] = acc[part][2];
      at[kStreamStride + 8] = acc[part][3];
    }
    __syncthreads();
    for (uint32_t i = warp * 32 + lane; i < 128 * kTiles; i += 32 * warps) {
      // Half a warp has a row: those of both halves, four apart, meet in no bank.
      const int row = i / 16, m = (row & 8) | (row & 1) << 2 | (row >> 1 & 3), n = blockIdx.x * 16 + i % 16;
      if (m >= p.m || n >= p.n) continue;
      float product = 0;
      for (uint32_t w = 0; w < warps; ++w) {
        product += sums[w * (kStreamWarpBytes / 4) + m * kStreamStride + i % 16];
      }
      if (p.partial != nullptr) {
        p.partial[(static_cast<int64_t>(blockIdx.y) * p.m + m) * p.n + n] = product;
      } else {
        store_product<kPrepared>(p.epilogue, product, m, n);
      }
    }
  }

  __device__ __forceinline__ void run() {
    if constexpr (Codes::kTable) {
      Codes::fill(p.b.table, p.b.tables, warp * 32 + lane, warps * 32);
      __syncthreads();
    }
    float acc[kTiles][4] = {};
    accumulate(acc);
    store(acc);
  }
};

// kRows: 8 or 16, at least p.m.
template <class Codes, int kRows>
__device__ __forceinline__ void stream(const ProductParams& p) {
  StreamTile<typename StreamCodes<Codes>::Type, kRows / 8>(p).run();
}

}  // namespace bitloom::cuda::gemm
