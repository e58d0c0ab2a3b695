// Many rows of a: blocks of 64 x 128 outputs, four warps of 64 x 32. Weights and activations of 64 columns arrive by
// cp.async in a ring of stages; scales are brought into f16 once per block and unit, one unit ahead; weights become f16
// in registers, by the warp that multiplies them and by no other.
#pragma once

#include "../../ptx/mma.cuh"
#include "../../tile/activation_tile.cuh"
#include "../../tile/group_scale.cuh"
#include "epilogue.cuh"

namespace bitloom::cuda::gemm {

// At most 16 bytes per thread of what lies beside the codes of the block's row tiles.
struct SideCopy {
  const char* source;
  uint32_t target;  // in the stage
  uint32_t bytes;   // 16 of them, zeros (1) where the tile is not there, or nothing (0)

  // `per_tile` bytes, a multiple of 16, of each of kPromptRowTiles tiles.
  __device__ __forceinline__ SideCopy(const void* data, int64_t tile_bytes, int per_tile, int tiles, int first_tile,
                                      uint32_t at, int thread) {
    const int chunks = per_tile / 16;
    bytes = 0;
    source = static_cast<const char*>(data);
    target = at + thread * 16;
    if (thread >= kPromptRowTiles * chunks) return;
    const int tile = first_tile + thread / chunks;
    bytes = tile < tiles ? 16 : 1;
    if (tile < tiles) source += tile * tile_bytes + thread % chunks * 16;
  }
  __device__ __forceinline__ void copy(uint32_t stage, int64_t offset) const {
    ptx::copy_async_16(stage + target, bytes == 16 ? source + offset : source, bytes & 16);
  }
};

template <class Codes>
struct PromptTile {
  static constexpr int kUnitBytes = 128 * Codes::kWords;
  static constexpr int kActivationBytes = kPromptRows * 128;

  const ProductParams& p;
  char* stages;        // [kPromptStages]: activations, units, records, supers of 8 row tiles
  uint4* ready;        // [2][groups][128 columns] of GroupScale
  int stage_bytes;
  int thread, lane, warp;
  int row, row_tile;   // the block's first row of a, and of b in tiles
  uint32_t stages_address;
  const char* codes;   // of the first row tile
  ActivationCopy<kPromptRows, kPromptThreads> activations;
  SideCopy records, supers;

  __device__ __forceinline__ PromptTile(const ProductParams& params)
      : p(params),
        thread(threadIdx.x),
        row(blockIdx.y * kPromptRows),
        row_tile(blockIdx.x * kPromptRowTiles),
        activations(static_cast<const char*>(params.a) + row * params.a_row_bytes, params.a_row_bytes, params.m - row,
                    params.k, thread),
        records(params.b.records, params.b.tile_records, params.raw_bytes, params.b.row_tiles, row_tile,
                kActivationBytes + kPromptRowTiles * kUnitBytes, thread),
        supers(params.b.supers, params.b.tile_supers, params.b.super_bytes, params.b.row_tiles, row_tile,
               kActivationBytes + kPromptRowTiles * (kUnitBytes + params.raw_bytes), thread) {
    stages = shared_memory + table_bytes();
    stages_address = ptx::shared_address(stages);
    stage_bytes = prompt_stage_bytes(kUnitBytes, p.raw_bytes, p.b.super_bytes);
    ready = reinterpret_cast<uint4*>(stages + kPromptStages * stage_bytes);
    lane = thread % 32;
    warp = thread / 32;
    codes = static_cast<const char*>(p.b.codes) + row_tile * p.b.tile_codes;
  }

  __device__ __forceinline__ int table_bytes() const {
    if constexpr (Codes::kTable) return Codes::kTableBytes * p.b.tables;
    return 0;
  }
  __device__ __forceinline__ int first_group(int unit) const {
    return p.b.group_shift >= 31 ? 0 : unit * 64 >> p.b.group_shift;
  }

  __device__ __forceinline__ void copy_stage(int unit) const {
    const uint32_t stage = stages_address + unit % kPromptStages * stage_bytes;
    activations.copy(stage, unit * 64);
    constexpr int kChunks = kPromptRowTiles * kUnitBytes / 16;
#pragma unroll
    for (int first = 0; first < kChunks; first += kPromptThreads) {
      const int chunk = first + thread;
      if (first + kPromptThreads > kChunks && chunk >= kChunks) break;
      const int tile = chunk / (kUnitBytes / 16), in_tile = chunk % (kUnitBytes / 16);
      const bool there = row_tile + tile < p.b.row_tiles;
      const char* from = codes + tile * p.b.tile_codes + static_cast<int64_t>(unit) * kUnitBytes;
      ptx::copy_async_16(stage + kActivationBytes + chunk * 16, from + in_tile * 16, there ? 16 : 0);
    }
    if (records.bytes != 0) {
      records.copy(stage, static_cast<int64_t>(first_group(unit)) * p.b.record_bytes);
    }
    if (!Codes::kPlainScale && supers.bytes != 0) {
      supers.copy(stage, static_cast<int64_t>(unit >> p.b.super_shift) * p.b.super_bytes);
    }
  }

  // Scales of a unit that has arrived: a column per thread.
  __device__ __forceinline__ void convert_scales(int unit, float unit_factor) const {
    const char* records = stages + unit % kPromptStages * stage_bytes + kActivationBytes + kPromptRowTiles * kUnitBytes;
    const char* supers = records + kPromptRowTiles * p.raw_bytes + thread / 16 * p.b.super_bytes;
    const int place = 2 * (thread % 8) + thread / 8 % 2;
    records += thread / 16 * p.raw_bytes;
    GroupBits<1> bits{};
    if (!Codes::kPlainScale && p.b.super_bytes != 0) {
      bits.super_scale[0] = reinterpret_cast<const uint16_t*>(supers)[place];
      if (p.b.second == Second::sub_min) bits.super_min[0] = reinterpret_cast<const uint16_t*>(supers)[16 + place];
    }
    const bool bytes = !Codes::kPlainScale && has_byte_scales(p.b);
    uint4* to = ready + (unit & 1) * p.ready_groups * kPromptColumns + thread;
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
      *to = make_uint4(g[0].scale, g[0].offset, g[0].zero, 0);
    }
  }

  // acc[tile][i] += products of row tile 2 warp + tile and rows 8 i to + 7 of a.
  __device__ __forceinline__ void multiply(int unit, const Codes& decode, float (&acc)[2][8][4]) const {
    const char* stage = stages + unit % kPromptStages * stage_bytes;
    const char* units = stage + kActivationBytes + 2 * warp * kUnitBytes;
    const uint4* scales = ready + (unit & 1) * p.ready_groups * kPromptColumns + 32 * warp + lane / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 x[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] = load_activations(stage, 8 * i, half, lane);
      const int k = 32 * half + 8 * (lane % 4);
      const int group = p.b.group_shift >= 6 ? 0 : k >> p.b.group_shift;
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        uint32_t words[Codes::kWords];
        load_words<Codes::kWords>(words, units + tile * kUnitBytes, lane);
        GroupScale g[2] = {};
        if (Codes::kWords != 16) {
#pragma unroll
          for (int side = 0; side < 2; ++side) {
            const uint4 four = scales[group * kPromptColumns + 16 * tile + 8 * side];
            g[side] = {four.x, four.y + (Codes::kTable ? table_copy(lane) : 0), four.z};
          }
        }
#pragma unroll
        for (int u = 0; u < 2; ++u) {
          uint32_t weights[4];
          decode_step(decode, words, 2 * half + u, g, weights);
#pragma unroll
          for (int i = 0; i < 8; ++i) {
            ptx::mma_m16n8k16_f16(acc[tile][i], weights, u == 0 ? x[i].x : x[i].z, u == 0 ? x[i].y : x[i].w);
          }
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
        store_product(p.epilogue, product, row + i, n);
      }
    }
  }

  __device__ __forceinline__ void run() {
    const int begin = static_cast<int>(static_cast<int64_t>(p.b.units) * blockIdx.z / p.splits);
    const int end = static_cast<int>(static_cast<int64_t>(p.b.units) * (blockIdx.z + 1) / p.splits);
    if constexpr (Codes::kTable) Codes::fill(p.b.table, p.b.tables, thread, kPromptThreads);
    const float unit_factor = p.b.header[0];
    const Codes decode(p.b.zero, p.b.exponent_shift);
#pragma unroll 1
    for (int i = 0; i < kPromptStages - 1; ++i) {
      if (begin + i < end) copy_stage(begin + i);
      ptx::copy_async_commit();
    }
    float acc[2][8][4] = {};
    ptx::copy_async_wait<kPromptStages - 2>();
    __syncthreads();
    if (Codes::kWords != 16 && begin < end) convert_scales(begin, unit_factor);
#pragma unroll 1
    for (int unit = begin; unit < end; ++unit) {
      ptx::copy_async_wait<kPromptStages - 3>();
      __syncthreads();  // unit + 1 and the scales of `unit` are there for all; unit - 1 is used up
      if (unit + kPromptStages - 1 < end) copy_stage(unit + kPromptStages - 1);
      ptx::copy_async_commit();
      if (Codes::kWords != 16 && unit + 1 < end) convert_scales(unit + 1, unit_factor);
      multiply(unit, decode, acc);
    }
    store(acc);
  }
};

}  // namespace bitloom::cuda::gemm
