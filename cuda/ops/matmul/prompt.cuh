// Many rows of a: blocks of 64 x 128 outputs, four warps of 64 x 32. Weights and activations of 64 columns arrive by
// cp.async in a ring of stages; scales are brought into f16 once per block and unit, one unit ahead; weights become f16
// in registers, by the warp that multiplies them and by no other.
#pragma once

#include "../../tile/activation_tile.cuh"
#include "../../tile/group_scale.cuh"
#include "../../tile/scaled_sums.cuh"
#include "epilogue.cuh"

namespace bitloom::cuda::gemm {

// What a thread copies of units, a row tile's after the other's, unit after unit. Row tiles past the last one are copies
// of it: what comes of them is not kept.
template <int kUnitBytes>
struct UnitCopy {
  static constexpr int kTileChunks = kUnitBytes / 16, kChunks = kPromptRowTiles * kTileChunks;
  static constexpr int kCount = (kChunks + kPromptThreads - 1) / kPromptThreads;
  const char* source;        // of the next unit in the block's first row tile
  uint32_t offsets[kCount];  // of the thread's chunks; eight row tiles are less than 4 GB
  int thread;

  __device__ __forceinline__ UnitCopy(const FragmentWeights& b, int row_tile, int unit, int thread_) : thread(thread_) {
    source = static_cast<const char*>(b.codes) + row_tile * b.tile_codes + static_cast<int64_t>(unit) * kUnitBytes;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int chunk = thread + i * kPromptThreads;
      const int tile = min(chunk / kTileChunks, b.row_tiles - 1 - row_tile);
      offsets[i] = tile * static_cast<uint32_t>(b.tile_codes) + chunk % kTileChunks * 16;
    }
  }
  __device__ __forceinline__ void copy(uint32_t target) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if ((i + 1) * kPromptThreads > kChunks && thread >= kChunks - i * kPromptThreads) break;
      ptx::copy_async_16(target + (thread + i * kPromptThreads) * 16, source + offsets[i]);
    }
    source += kUnitBytes;
  }
};

// At most 16 bytes per thread of what lies beside the codes of the block's row tiles.
struct SideCopy {
  const char* source;
  uint32_t target;  // in the stage; 0: this thread has nothing to copy

  // `per_tile` bytes, a multiple of 16, of each of kPromptRowTiles tiles.
  __device__ __forceinline__ SideCopy(const void* data, int64_t tile_bytes, int per_tile, int tiles, int first_tile,
                                      uint32_t at, int thread) {
    const int chunks = per_tile / 16;
    target = 0;
    if (thread >= kPromptRowTiles * chunks) return;
    target = at + thread * 16;
    const int tile = min(first_tile + thread / chunks, tiles - 1);
    source = static_cast<const char*>(data) + tile * tile_bytes + thread % chunks * 16;
  }
  __device__ __forceinline__ void copy(uint32_t stage, int64_t offset) const {
    if (target != 0) ptx::copy_async_16(stage + target, source + offset);
  }
};

template <class Codes>
struct PromptTile {
  static constexpr int kUnitBytes = 128 * Codes::kWords;
  static constexpr int kActivationBytes = kPromptRows * 128;
  static constexpr int kParts = scale_parts(Codes::kPlainScale, Codes::kTable);

  const ProductParams& p;
  int thread, lane, warp;
  int row, row_tile;  // the block's first row of a, and of b in tiles
  int begin, end;     // units
  int stage_bytes;
  char* stages;       // [kPromptStages]: activations, units, records, supers of 8 row tiles
  uint32_t* ready;    // [2][kParts][groups][128 columns]: scales, then offsets, then zeros
  int groups[2];      // of the lane's weights in either half of a unit, times 128
  ActivationCopy<kPromptRows, kPromptThreads> activations;
  UnitCopy<kUnitBytes> units;
  SideCopy records, supers;

  __device__ __forceinline__ PromptTile(const ProductParams& params)
      : p(params),
        thread(threadIdx.x),
        lane(threadIdx.x % 32),
        warp(threadIdx.x / 32),
        row(blockIdx.y * kPromptRows),
        row_tile(blockIdx.x * kPromptRowTiles),
        begin(static_cast<int>(params.b.units * blockIdx.z / params.splits)),
        end(static_cast<int>(params.b.units * (blockIdx.z + 1) / params.splits)),
        stage_bytes(prompt_stage_bytes(kUnitBytes, params.raw_bytes, params.b.super_bytes)),
        activations(static_cast<const char*>(params.a) + row * params.a_row_bytes, params.a_row_bytes, params.m - row,
                    64 * begin, params.k, thread),
        units(params.b, row_tile, begin, thread),
        records(params.b.records, params.b.tile_records, params.raw_bytes, params.b.row_tiles, row_tile,
                kActivationBytes + kPromptRowTiles * kUnitBytes, thread),
        supers(params.b.supers, params.b.tile_supers, params.b.super_bytes, params.b.row_tiles, row_tile,
               kActivationBytes + kPromptRowTiles * (kUnitBytes + params.raw_bytes), thread) {
    stages = shared_memory + table_bytes();
    ready = reinterpret_cast<uint32_t*>(stages + kPromptStages * stage_bytes);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int k = 32 * half + 8 * (lane % 4);
      groups[half] = p.b.group_shift >= 6 ? 0 : (k >> p.b.group_shift) * kPromptColumns;
    }
  }

  __device__ __forceinline__ int table_bytes() const {
    if constexpr (Codes::kTable) return Codes::kTableBytes * p.b.tables;
    return 0;
  }
  __device__ __forceinline__ int first_group(int unit) const {
    return p.b.group_shift >= 31 ? 0 : unit * 64 >> p.b.group_shift;
  }

  // Units one after the other.
  __device__ __forceinline__ void copy_stage(int unit, char* to) {
    const uint32_t stage = ptx::shared_address(to);
    activations.copy(stage);
    units.copy(stage + kActivationBytes);
    if (Codes::kWords == 16) return;
    records.copy(stage, static_cast<int64_t>(first_group(unit)) * p.b.record_bytes);
    if (!Codes::kPlainScale) {
      supers.copy(stage, static_cast<int64_t>(unit >> p.b.super_shift) * p.b.super_bytes);
    }
  }

  // Scales of a unit that has arrived: a column per thread.
  __device__ __forceinline__ void convert_scales(const char* stage, uint32_t* to, float unit_factor) const {
    const char* records = stage + kActivationBytes + kPromptRowTiles * kUnitBytes;
    const char* supers = records + kPromptRowTiles * p.raw_bytes + thread / 16 * p.b.super_bytes;
    const int place = 2 * (thread % 8) + thread / 8 % 2;
    records += thread / 16 * p.raw_bytes;
    GroupBits<1> bits{};
    if (!Codes::kPlainScale && p.b.super_bytes != 0) {
      bits.super_scale[0] = reinterpret_cast<const uint16_t*>(supers)[place];
      if (p.b.second == Second::sub_min) bits.super_min[0] = reinterpret_cast<const uint16_t*>(supers)[16 + place];
    }
    const bool bytes = Codes::kByteScales || (!Codes::kPlainScale && has_byte_scales(p.b));
    to += thread;
#pragma unroll 1
    for (int group = 0; group < p.ready_groups; ++group, records += p.b.record_bytes, to += kPromptColumns) {
      const auto stored = [&](const char* from, bool byte) -> uint32_t {
        return byte ? reinterpret_cast<const uint8_t*>(from)[place] : reinterpret_cast<const uint16_t*>(from)[place];
      };
      bits.scale[0] = stored(records, bytes);
      if (!Codes::kPlainScale && p.b.second != Second::none) {
        bits.second[0] = stored(records + p.b.second_offset, bytes || p.b.second == Second::table_number);
      }
      GroupScale g[1];
      group_scales<Codes>(p.b, unit_factor, bits, g);
      const int part = p.ready_groups * kPromptColumns;
      to[0] = g[0].scale;
      if (kParts > 1) to[part] = g[0].offset;
      if (kParts > 2) to[2 * part] = g[0].zero;
    }
  }

  // acc[tile][i] += products of row tile 2 warp + tile and rows 8 i to + 7 of a.
  __device__ __forceinline__ void multiply(const char* stage, const uint32_t* now, const Codes& decode,
                                           float (&acc)[2][8][4]) const {
    const char* units = stage + kActivationBytes + 2 * warp * kUnitBytes;
    const uint32_t* scales = now + 32 * warp + lane / 4;
    const int part = p.ready_groups * kPromptColumns;
    uint32_t words[2][Codes::kWords];
    float sums[Codes::kScalesSums ? 2 : 1][8][4] = {};  // of a group, or of its part in this unit
    constexpr bool kByHalves = Codes::kWords >= 8;  // a half's words are read when it is their turn
#pragma unroll
    for (int tile = 0; tile < 2 && !kByHalves; ++tile) {
      load_words<Codes::kWords>(words[tile], units + tile * kUnitBytes, lane);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 x[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] = load_activations(stage, 8 * i, half, lane);
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        if (kByHalves) load_words<Codes::kWords>(words[tile], units + tile * kUnitBytes, lane);
        GroupScale g[2] = {};
        if (Codes::kWords != 16) {
#pragma unroll
          for (int side = 0; side < 2; ++side) {
            const uint32_t* at = scales + groups[half] + 16 * tile + 8 * side;
            g[side].scale = at[0];
            if (kParts > 1) g[side].offset = at[part] + table_copy<Codes>(lane);
            if (kParts > 2) g[side].zero = at[2 * part];
          }
        }
#pragma unroll
        for (int u = 0; u < 2; ++u) {
          uint32_t weights[4];
          decode_step(decode, words[tile], 2 * half + u, g, weights);
#pragma unroll
          for (int i = 0; i < 8; ++i) {
            mma_step<Codes>(Codes::kScalesSums ? sums[tile][i] : acc[tile][i], weights, u == 0 ? x[i].x : x[i].z,
                            u == 0 ? x[i].y : x[i].w);
          }
        }
        if (Codes::kScalesSums && (half == 1 || p.ready_groups > 1)) {
#pragma unroll
          for (int i = 0; i < 8; ++i) add_scaled(acc[tile][i], sums[tile][i], g);
        }
      }
    }
  }

  // The tile through shared memory, then row by row to where it belongs.
  __device__ __forceinline__ void store(const float (&acc)[2][8][4]) const {
    float* staged = reinterpret_cast<float*>(shared_memory);
    __syncthreads();  // other warps may still read the last unit
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float* at = staged + (8 * i + 2 * (lane % 4)) * kStagedStride + 32 * warp + 16 * tile + lane / 4;
        at[0] = acc[tile][i][0];
        at[kStagedStride] = acc[tile][i][1];
        at[8] = acc[tile][i][2];
        at[kStagedStride + 8] = acc[tile][i][3];
      }
    }
    __syncthreads();
    const int n = row_tile * 16 + thread;
    if (n >= p.n) return;
    const int rows = min(kPromptRows, p.m - row);
#pragma unroll 1
    for (int i = 0; i < rows; ++i) {
      const float product = staged[i * kStagedStride + thread];
      if (p.partial != nullptr) {
        p.partial[(static_cast<int64_t>(blockIdx.z) * p.m + row + i) * p.n + n] = product;
      } else {
        store_product<!Codes::kBf16>(p.epilogue, product, row + i, n);
      }
    }
  }

  __device__ __forceinline__ void run() {
    if constexpr (Codes::kTable) Codes::fill(p.b.table, p.b.tables, thread, kPromptThreads);
    const float unit_factor = Codes::kBf16 ? 1 : p.b.header[0];
    const Codes decode(p.b);
    char* write = stages;  // of the next unit to be copied
    const char *read = stages, *last = stages + (kPromptStages - 1) * stage_bytes;
#pragma unroll 1
    for (int i = 0; i < kPromptStages - 1; ++i, write += stage_bytes) {
      if (begin + i < end) copy_stage(begin + i, write);
      ptx::copy_async_commit();
    }
    float acc[2][8][4] = {};
    if constexpr (Codes::kWords != 16) {
      ptx::copy_async_wait<kPromptStages - 2>();
      __syncthreads();
    }
    uint32_t *now = ready, *then = ready + kParts * p.ready_groups * kPromptColumns;
    if (Codes::kWords != 16 && begin < end) convert_scales(read, now, unit_factor);
#pragma unroll 1
    for (int unit = begin; unit < end; ++unit) {
      ptx::copy_async_wait<kPromptStages - 3>();
      __syncthreads();  // unit + 1 and the scales of `unit` are there for all; unit - 1 is used up
      if (unit + kPromptStages - 1 < end) copy_stage(unit + kPromptStages - 1, write);
      ptx::copy_async_commit();
      write = write == last ? stages : write + stage_bytes;
      const char* next = read == last ? stages : read + stage_bytes;
      if (Codes::kWords != 16 && unit + 1 < end) convert_scales(next, then, unit_factor);
      multiply(read, now, decode, acc);
      read = next;
      uint32_t* used = now;
      now = then;
      then = used;
    }
    store(acc);
  }
};

}  // namespace bitloom::cuda::gemm
