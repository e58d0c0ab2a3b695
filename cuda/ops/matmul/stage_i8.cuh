// What arrives for a stage of the int8 prompt kernel, by cp.async: what each thread copies of it, stage after stage.
#pragma once

#include "../../tile/activation_tile.cuh"
#include "config_i8.h"

namespace bitloom::cuda::gemm {

// What a thread copies of the activations of a stage: every second 16 bytes of half of the block's rows' 128, so that its
// copies differ by constants on the one side and a warp takes whole sectors. Rows past the last one are copies of it:
// what comes of them is not kept.
struct CodeCopy {
  static constexpr int kCount = 4;
  static_assert(kPromptRows * 2 == kPromptThreads && kStageDepth == 128);
  const char* source;  // of the next stage
  uint32_t targets[kCount];

  // The block's rows begin at `a`, `row_bytes` apart.
  __device__ __forceinline__ CodeCopy(const void* a, int64_t row_bytes, int rows, int stage, int thread) {
    // Eight lanes have rows 0, 1, 4, 5 or 2, 3, 6, 7 of eight: so swizzled, they meet in no bank.
    const int q = thread / 2, row = (q & ~6) | (q & 2) << 1 | (q & 4) >> 1;
    source = static_cast<const char*>(a) + min(row, rows - 1) * row_bytes + static_cast<int64_t>(stage) * kStageDepth +
             thread % 2 * 16;
#pragma unroll
    for (int i = 0; i < kCount; ++i) targets[i] = row * 128 + (((2 * i + thread % 2) ^ swizzle(row)) << 4);
  }
  __device__ __forceinline__ void copy(uint32_t to) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) ptx::copy_async_16(to + targets[i], source + 32 * i);
    source += kStageDepth;
  }
};

// What a thread copies of two units of a row tile: each of its 16 threads every 16th chunk. Row tiles past the last one
// are copies of it; a unit past the last one is zero.
template <int kUnitBytes>
struct UnitPairCopy {
  static constexpr int kThreads = kPromptThreads / kPromptRowTiles;  // of a row tile
  static constexpr int kUnitChunks = kUnitBytes / 16, kCount = 2 * kUnitChunks / kThreads;
  static_assert(2 * kUnitChunks % kThreads == 0);
  const char* source;  // of the next stage
  uint32_t target;

  __device__ __forceinline__ UnitPairCopy(const FragmentWeights& b, int row_tile, int stage, int thread) {
    const int tile = thread / kThreads, chunk = thread % kThreads;
    source = static_cast<const char*>(b.codes) + min(row_tile + tile, b.row_tiles - 1) * b.tile_codes +
             static_cast<int64_t>(stage) * 2 * kUnitBytes + chunk * 16;
    target = tile * 2 * kUnitBytes + chunk * 16;
  }
  // `both`: the stage has two units.
  __device__ __forceinline__ void copy(uint32_t to, bool both, int thread) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      // The unit of a chunk is known but for formats of 1, 3, 5 and 7 bits, whose middle chunks are of either.
      const int first = i * kThreads, last = first + kThreads - 1;
      const bool there = last < kUnitChunks      ? true
                         : first >= kUnitChunks ? both
                                                : both || first + thread % kThreads < kUnitChunks;
      ptx::copy_async_16(to + target + first * 16, source + first * 16, there ? 16 : 0);
    }
    source += 2 * kUnitBytes;
  }
};

// At most 16 bytes per thread of what lies beside the codes of the block's row tiles; zero past a tile's last one.
struct RecordCopy {
  const char* source;
  uint32_t offset, tile_bytes;  // of the thread's chunk among a stage's; below 2^32 for 2^30 columns
  uint32_t target;              // in the stage; 0: this thread has nothing to copy

  // `per_tile` bytes of a stage, a multiple of 16, of each of kPromptRowTiles tiles.
  __device__ __forceinline__ RecordCopy(const void* data, int64_t tile_bytes_, int per_tile, int row_tile, int row_tiles,
                                        uint32_t at, int thread) {
    const int chunks = per_tile / 16;
    target = 0;
    if (thread >= kPromptRowTiles * chunks) return;
    target = at + thread * 16;
    offset = thread % chunks * 16;
    tile_bytes = static_cast<uint32_t>(tile_bytes_);
    source = static_cast<const char*>(data) + min(row_tile + thread / chunks, row_tiles - 1) * tile_bytes_ + offset;
  }
  // The stage's begin `first` bytes into a tile's.
  __device__ __forceinline__ void copy(uint32_t stage, uint32_t first) const {
    if (target != 0) ptx::copy_async_16(stage + target, source + first, first + offset < tile_bytes ? 16 : 0);
  }
};

// What belongs to groups of activations of a stage and the block's rows, from `row` on.
template <Steps kSteps, int kSideBytes>
__device__ __forceinline__ void copy_sides(const IntegerParams& p, int stage, int row, uint32_t to, int thread) {
  constexpr bool kFine = kSteps == Steps::fine;
  constexpr int kChunks = kSideBytes / 16, kUnitChunks = kFine ? 32 : 16;
#pragma unroll
  for (int i = 0; i < (kChunks + kPromptThreads - 1) / kPromptThreads; ++i) {
    const int chunk = thread + i * kPromptThreads;
    if (chunk >= kChunks) break;
    // fine: [kind][unit of the stage][32 chunks]; coarse: [16 chunks]
    const int part = chunk / kUnitChunks;
    const float* from = p.sides + chunk % kUnitChunks * 4;
    from += kFine ? part / 2 * p.side_stride + (2 * static_cast<int64_t>(stage) + part % 2) * 2 * p.rows + 2 * row
                  : static_cast<int64_t>(stage) * p.rows + row;
    ptx::copy_async_16(to + chunk * 16, from);
  }
}

}  // namespace bitloom::cuda::gemm
