// Many rows of a: blocks of 64 x 128 outputs, four warps of 64 x 32. Weights and activations of 64 columns arrive by
// cp.async in a ring of stages; scales are brought into f16 once per block and unit, one unit ahead; weights become f16
// in registers, by the warp that multiplies them and by no other.
#pragma once

#include "../../ptx/mma.cuh"
#include "../../tile/activation_tile.cuh"
#include "../../tile/group_scale.cuh"
#include "epilogue.cuh"

namespace bitloom::cuda::gemm {

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

  __device__ __forceinline__ PromptTile(const ProductParams& params) : p(params) {
    stages = shared_memory + table_bytes();
    stage_bytes = prompt_stage_bytes(kUnitBytes, p.raw_bytes, p.b.super_bytes);
    ready = reinterpret_cast<uint4*>(stages + kPromptStages * stage_bytes);
    thread = threadIdx.x;
    lane = thread % 32;
    warp = thread / 32;
    row = blockIdx.y * kPromptRows;
    row_tile = blockIdx.x * kPromptRowTiles;
  }

  __device__ __forceinline__ int table_bytes() const {
    if constexpr (Codes::kTable) return Codes::kTableBytes * p.b.tables;
    return 0;
  }
  __device__ __forceinline__ int first_group(int unit) const {
    return p.b.group_shift >= 31 ? 0 : unit * 64 >> p.b.group_shift;
  }

  // `bytes` (a multiple of 16) of each of the block's row tiles; tiles that are not there are zeros.
  __device__ __forceinline__ void copy_tiles(uint32_t target, const void* source, int64_t tile_bytes, int bytes) const {
    const int chunks = bytes / 16;
    for (int i = thread; i < kPromptRowTiles * chunks; i += kPromptThreads) {
      const int tile = i / chunks, chunk = i % chunks;
      const bool there = row_tile + tile < p.b.row_tiles;
      const char* from = static_cast<const char*>(source) + (there ? (row_tile + tile) * tile_bytes + chunk * 16 : 0);
      ptx::copy_async_16(target + i * 16, from, there ? 16 : 0);
    }
  }

  __device__ __forceinline__ void copy_stage(int unit) const {
    const uint32_t target = ptx::shared_address(stages + unit % kPromptStages * stage_bytes);
    copy_activations<kPromptRows, kPromptThreads>(
        target, static_cast<const char*>(p.a) + static_cast<int64_t>(row) * p.a_row_bytes, p.a_row_bytes, p.m - row,
        unit * 64, p.k, thread);
    uint32_t at = target + kActivationBytes;
    const char* codes = static_cast<const char*>(p.b.codes) + static_cast<int64_t>(unit) * kUnitBytes;
    constexpr int kChunks = kPromptRowTiles * kUnitBytes / 16;
#pragma unroll
    for (int first = 0; first < kChunks; first += kPromptThreads) {
      const int chunk = first + thread;
      if (first + kPromptThreads > kChunks && chunk >= kChunks) break;
      const int tile = chunk / (kUnitBytes / 16), in_tile = chunk % (kUnitBytes / 16);
      const bool there = row_tile + tile < p.b.row_tiles;
      ptx::copy_async_16(at + chunk * 16, codes + (there ? (row_tile + tile) * p.b.tile_codes + in_tile * 16 : 0),
                         there ? 16 : 0);
    }
    at += kPromptRowTiles * kUnitBytes;
    if (p.raw_bytes == 0) return;
    copy_tiles(at, static_cast<const char*>(p.b.records) + static_cast<int64_t>(first_group(unit)) * p.b.record_bytes,
               p.b.tile_records, p.raw_bytes);
    if (p.b.super_bytes == 0) return;
    at += kPromptRowTiles * p.raw_bytes;
    copy_tiles(at, static_cast<const char*>(p.b.supers) +
                       static_cast<int64_t>(unit >> p.b.super_shift) * p.b.super_bytes,
               p.b.tile_supers, p.b.super_bytes);
  }

  // Scales of a unit that has arrived: a column per thread.
  __device__ __forceinline__ void convert_scales(int unit, float unit_factor) const {
    const char* records = stages + unit % kPromptStages * stage_bytes + kActivationBytes + kPromptRowTiles * kUnitBytes;
    const char* supers = records + kPromptRowTiles * p.raw_bytes + thread / 16 * p.b.super_bytes;
    const int place = 2 * (thread % 8) + thread / 8 % 2;
    records += thread / 16 * p.raw_bytes;
    GroupBits bits{0, 0, 0, 0};
    if (p.b.super_bytes != 0) {
      bits.super_scale = reinterpret_cast<const uint16_t*>(supers)[place];
      if (p.b.second == Second::sub_min) bits.super_min = reinterpret_cast<const uint16_t*>(supers)[16 + place];
    }
    const bool bytes = has_byte_scales(p.b);
    uint4* to = ready + (unit & 1) * p.ready_groups * kPromptColumns + thread;
    for (int group = 0; group < p.ready_groups; ++group, records += p.b.record_bytes, to += kPromptColumns) {
      const auto stored = [&](const char* from, bool byte) -> uint32_t {
        return byte ? reinterpret_cast<const uint8_t*>(from)[place] : reinterpret_cast<const uint16_t*>(from)[place];
      };
      bits.scale = stored(records, bytes);
      if (p.b.second != Second::none) {
        bits.second = stored(records + p.b.second_offset, bytes || p.b.second == Second::table_number);
      }
      const GroupScale g = group_scale<Codes>(p.b, unit_factor, bits);
      *to = make_uint4(g.scale, g.offset, g.zero, 0);
    }
  }

  // acc += the unit's products; warp: columns 32 warp to + 31.
  __device__ __forceinline__ void multiply(int unit, const Codes& codes, float (&acc)[4][4][4]) const {
    const char* stage = stages + unit % kPromptStages * stage_bytes;
    const char* units = stage + kActivationBytes + 2 * warp * kUnitBytes;
    const uint4* scales = ready + (unit & 1) * p.ready_groups * kPromptColumns + 32 * warp + lane / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t a[4][2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) load_activations(a[i], stage, 16 * i, half, lane);
      const int k = 32 * half + 8 * (lane % 4);
      const int group = p.b.group_shift >= 6 ? 0 : k >> p.b.group_shift;
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        uint32_t words[Codes::kWords];
        load_words<Codes::kWords>(words, units + tile * kUnitBytes, lane);
#pragma unroll
        for (int column = 0; column < 2; ++column) {
          GroupScale g{0, 0, 0};
          if (Codes::kWords != 16) {
            const uint4 four = scales[group * kPromptColumns + 16 * tile + 8 * column];
            g = {four.x, four.y + (Codes::kTable ? table_copy(lane) : 0), four.z};
          }
#pragma unroll
          for (int u = 0; u < 2; ++u) {
            const int step = 2 * half + u;
            const uint32_t b0 = codes.pair(words, step, 2 * column, g);
            const uint32_t b1 = codes.pair(words, step, 2 * column + 1, g);
#pragma unroll
            for (int i = 0; i < 4; ++i) ptx::mma_m16n8k16_f16(acc[i][2 * tile + column], a[i][u], b0, b1);
          }
        }
      }
    }
  }

  // The tile through shared memory, then row by row to where it belongs.
  __device__ __forceinline__ void store(const float (&acc)[4][4][4]) const {
    float* staged = reinterpret_cast<float*>(shared_memory);
    __syncthreads();  // other warps may still read the last unit
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float* at = staged + (16 * i + lane / 4) * kStagedStride + 32 * warp + 8 * j + 2 * (lane % 4);
        *reinterpret_cast<float2*>(at) = make_float2(acc[i][j][0], acc[i][j][1]);
        *reinterpret_cast<float2*>(at + 8 * kStagedStride) = make_float2(acc[i][j][2], acc[i][j][3]);
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
    const Codes codes(p.b.zero, p.b.exponent_shift);
#pragma unroll
    for (int i = 0; i < kPromptStages - 1; ++i) {
      if (begin + i < end) copy_stage(begin + i);
      ptx::copy_async_commit();
    }
    float acc[4][4][4] = {};
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
      multiply(unit, codes, acc);
    }
    store(acc);
  }
};

}  // namespace bitloom::cuda::gemm
