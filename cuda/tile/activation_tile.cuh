// A tile of activations in shared memory: rows of 64 f16 (128 bytes), copied 16 bytes at a time and read as A fragments.
#pragma once

#include "../ptx/copy.cuh"

namespace bitloom::cuda {

// 16-byte chunk c of row r stands at chunk c ^ swizzle(r). Eight rows then have eight places for one chunk (ldmatrix,
// one row per lane), and rows 2i and 2i + 1 differ in bit 2 (reads of four consecutive chunks of two rows): neither
// meets a bank twice.
__device__ __forceinline__ int swizzle(int row) { return (row & 1) << 2 | (row >> 1 & 3); }

// What a thread copies of a tile of kRows rows, unit after unit of 64 columns: chunk thread % 8 of every kThreads / 8-th
// row. Rows past the last one are copies of it: what comes of them is not kept.
template <int kRows, int kThreads>
struct ActivationCopy {
  static constexpr int kStep = kThreads / 8;  // rows; a multiple of 8, so that all have one swizzle
  static constexpr int kCount = kRows / kStep;
  const char* source;        // of the thread's chunk in row 0 and the next unit
  uint32_t offsets[kCount];  // of rows; 64 rows are less than 4 GB
  int columns;               // that are left from the chunk on
  uint32_t target;           // in the tile

  // The tile begins at `tile` and has `rows` rows of `columns_` (a multiple of 8), from `k` on; further columns are zero.
  __device__ __forceinline__ ActivationCopy(const void* tile, int64_t row_bytes, int rows, int k, int columns_,
                                            int thread) {
    const int row = thread / 8, chunk = thread % 8;
    source = static_cast<const char*>(tile) + 2 * static_cast<int64_t>(k) + chunk * 16;
    columns = columns_ - k - chunk * 8;
    target = row * 128 + ((chunk ^ swizzle(row)) << 4);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      offsets[i] = static_cast<uint32_t>(min(row + i * kStep, rows - 1)) * static_cast<uint32_t>(row_bytes);
    }
  }
  // The next 64 columns to shared memory at `tile`.
  __device__ __forceinline__ void copy(uint32_t tile) {
    const uint32_t bytes = columns > 0 ? 16 : 0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      ptx::copy_async_16(tile + target + i * kStep * 128, source + offsets[i], bytes);
    }
    source += 128;
    columns -= 64;
  }
};

// Eight columns of 8 rows from `row` on: lane 4 g + t has k = 32 half + 8 t to + 7 of row g (fragments_place.h), which
// are the second operands (x, y), (z, w) of mma steps 2 half and 2 half + 1.
__device__ __forceinline__ uint4 load_activations(const char* tile, int row, int half, int lane) {
  const int g = lane / 4;
  return *reinterpret_cast<const uint4*>(tile + (row + g) * 128 + (((4 * half + lane % 4) ^ swizzle(g)) << 4));
}

}  // namespace bitloom::cuda
