// A tile of activations in shared memory: rows of 64 f16 (128 bytes), copied 16 bytes at a time and read as A fragments.
#pragma once

#include "../ptx/copy.cuh"

namespace bitloom::cuda {

// 16-byte chunk c of row r stands at chunk c ^ swizzle(r). Eight rows then have eight places for one chunk (ldmatrix,
// one row per lane), and rows 2i and 2i + 1 differ in bit 2 (reads of four consecutive chunks of two rows): neither
// meets a bank twice.
__device__ __forceinline__ int swizzle(int row) { return (row & 1) << 2 | (row >> 1 & 3); }

// Copies kRows rows of `source` (row stride in bytes), of which `rows` exist, 64 columns from column `k`; those from
// `columns` on are zero. columns must be a multiple of 8.
template <int kRows, int kThreads>
__device__ __forceinline__ void copy_activations(uint32_t target, const char* source, int64_t row_bytes, int rows,
                                                 int k, int columns, int thread) {
  const int chunk = thread % 8;
#pragma unroll
  for (int i = 0; i < kRows * 8 / kThreads; ++i) {
    const int row = thread / 8 + i * (kThreads / 8);
    const bool there = row < rows && k + chunk * 8 < columns;
    const char* from = there ? source + row * row_bytes + (k + chunk * 8) * 2 : source;
    ptx::copy_async_16(target + row * 128 + ((chunk ^ swizzle(row)) << 4), from, there ? 16 : 0);
  }
}

// Steps 2 half and 2 half + 1 of the 16 rows from `row` on: lane 4 g + t has k = 32 half + 8 t to + 7 of rows g and
// g + 8 (fragments_place.h), so two 16-byte reads are the A fragments of two mma.
__device__ __forceinline__ void load_activations(uint32_t (&a)[2][4], const char* tile, int row, int half, int lane) {
  const int g = lane / 4;
  const char* at = tile + (row + g) * 128 + (((4 * half + lane % 4) ^ swizzle(g)) << 4);
  const uint4 upper = *reinterpret_cast<const uint4*>(at);
  const uint4 lower = *reinterpret_cast<const uint4*>(at + 8 * 128);
  a[0][0] = upper.x, a[0][2] = upper.y, a[1][0] = upper.z, a[1][2] = upper.w;
  a[0][1] = lower.x, a[0][3] = lower.y, a[1][1] = lower.z, a[1][3] = lower.w;
}

}  // namespace bitloom::cuda
