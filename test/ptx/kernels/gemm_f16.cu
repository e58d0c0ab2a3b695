// c = a * b^T in f16 with f32 sums: a M x K, b N x K, c M x N; M, N multiples of 64, K of 32. Tiles of 64 x 64 x 32,
// four warps of 32 x 32, three stages of cp.async, rows of 64 bytes swizzled so that ldmatrix meets no bank twice.
#include <cuda_fp16.h>
#include <cstdint>

constexpr int kTile = 64, kDepth = 32, kStages = 3;
constexpr int kStageBytes = 2 * kTile * kDepth * 2;

// Byte offset of 16-byte chunk `chunk` (0..3) of row `row`: two rows share 128 bytes of banks, four pairs of rows
// take turns.
__device__ uint32_t swizzled(int row, int chunk) { return row * 64 + ((chunk ^ ((row >> 1) & 3)) << 4); }

__device__ void copy_async(uint32_t target, const void* source) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(source) : "memory");
}

__device__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}

__device__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ void fetch(uint32_t stage, const __half* a, const __half* b, int k, int columns) {
  for (int i = threadIdx.x; i < kTile * 4; i += 128) {
    const int row = i / 4, chunk = i % 4;
    copy_async(stage + swizzled(row, chunk), a + row * columns + k + chunk * 8);
    copy_async(stage + kTile * 64 + swizzled(row, chunk), b + row * columns + k + chunk * 8);
  }
}

extern "C" __global__ void __launch_bounds__(128) gemm_f16(const __half* a, const __half* b, __half* c, int n, int k) {
  extern __shared__ __align__(128) unsigned char stages[];
  const uint32_t base = static_cast<uint32_t>(__cvta_generic_to_shared(stages));
  a += blockIdx.y * kTile * k;
  b += blockIdx.x * kTile * k;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row0 = warp / 2 * 32, column0 = warp % 2 * 32;
  float sums[2][4][4] = {};
  const int steps = k / kDepth;
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < steps) fetch(base + s * kStageBytes, a, b, s * kDepth, k);
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  for (int step = 0; step < steps; ++step) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncthreads();
    const int next = step + kStages - 1;
    if (next < steps) fetch(base + next % kStages * kStageBytes, a, b, next * kDepth, k);
    asm volatile("cp.async.commit_group;" ::: "memory");
    const uint32_t stage = base + step % kStages * kStageBytes;
#pragma unroll
    for (int kk = 0; kk < kDepth / 16; ++kk) {
      uint32_t fa[2][4], fb[2][4];
      for (int i = 0; i < 2; ++i) {
        load_matrices(fa[i], stage + swizzled(row0 + i * 16 + lane % 16, kk * 2 + lane / 16));
        load_matrices(fb[i], stage + kTile * 64 +
                                 swizzled(column0 + i * 16 + lane % 8 + lane / 16 * 8, kk * 2 + lane / 8 % 2));
      }
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 4; ++j) multiply(sums[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
      }
    }
  }
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 4; ++j) {
      const int row = blockIdx.y * kTile + row0 + i * 16 + lane / 4;
      const int column = blockIdx.x * kTile + column0 + j * 8 + lane % 4 * 2;
      *reinterpret_cast<__half2*>(c + row * n + column) = __floats2half2_rn(sums[i][j][0], sums[i][j][1]);
      *reinterpret_cast<__half2*>(c + (row + 8) * n + column) = __floats2half2_rn(sums[i][j][2], sums[i][j][3]);
    }
  }
}
