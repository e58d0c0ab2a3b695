// A tile of activations in shared memory: rows of 64 f16 (128 bytes), copied 16 bytes at a time and read as A fragments.
#pragma once

#include "../ptx/copy.cuh"

namespace bitloom::cuda {

// 16-byte chunk c of row r stands at chunk c ^ swizzle(r). Eight rows then have eight places for one chunk (ldmatrix,
// one row per lane), and rows 2i and 2i + 1 differ in bit 2 (reads of four consecutive chunks of two rows): neither
// meets a bank twice.
__device__ __forceinline__ int swizzle(int row) { return (row & 1) << 2 | (row >> 1 & 3); }

// What a thread copies of a tile of kRows rows: chunk thread % 8 of every kThreads / 8-th row.
template <int kRows, int kThreads>
struct ActivationCopy {
  static constexpr int kStep = kThreads / 8;  // rows; a multiple of 8, so that all have one swizzle
  const char* source;                         // of the thread's first row, in column 0
  int64_t step_bytes;
  int rows, columns;  // that exist, from the thread's own on
  uint32_t target;    // in the tile

  // The tile begins at `tile` and has `rows_` rows of `columns_` (a multiple of 8); the rest is zero.
  __device__ __forceinline__ ActivationCopy(const void* tile, int64_t row_bytes, int rows_, int columns_, int thread) {
    const int row = thread / 8, chunk = thread % 8;
    source = static_cast<const char*>(tile) + row * row_bytes + chunk * 16;
    step_bytes = kStep * row_bytes;
    rows = rows_ - row;
    columns = columns_ - chunk * 8;
    target = row * 128 + ((chunk ^ swizzle(row)) << 4);
  }
  // Columns k to k + 63 to shared memory at `tile`.
  __device__ __forceinline__ void copy(uint32_t tile, int k) const {
    const char* from = source + 2 * static_cast<int64_t>(k);
#pragma unroll
    for (int i = 0; i < kRows / kStep; ++i, from += step_bytes) {
      const bool there = i * kStep < rows && k < columns;
      ptx::copy_async_16(tile + target + i * kStep * 128, from, there ? 16 : 0);
    }
  }
};

// Eight columns of 8 rows from `row` on: lane 4 g + t has k = 32 half + 8 t to + 7 of row g (fragments_place.h), which
// are the second operands (x, y), (z, w) of mma steps 2 half and 2 half + 1.
__device__ __forceinline__ uint4 load_activations(const char* tile, int row, int half, int lane) {
  const int g = lane / 4;
  return *reinterpret_cast<const uint4*>(tile + (row + g) * 128 + (((4 * half + lane % 4) ^ swizzle(g)) << 4));
}

}  // namespace bitloom::cuda
