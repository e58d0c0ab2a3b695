// A row of kernels.inc or kernels_bf16.inc as a prompt and stream kernels.
#pragma once

#include "prompt.cuh"
#include "stream.cuh"

#define BL_MATMUL_PROMPT(name, ...)                                                            \
  extern "C" __global__ void __launch_bounds__(bitloom::cuda::gemm::kPromptThreads)            \
      matmul_prompt_##name(const __grid_constant__ bitloom::cuda::gemm::ProductParams p) {     \
    bitloom::cuda::gemm::PromptTile<__VA_ARGS__>(p).run();                                     \
  }
#define BL_MATMUL_STREAM(kind, name, rows, ...)                                                \
  extern "C" __global__ void __launch_bounds__(32 * bitloom::cuda::gemm::kStreamWarps,         \
                                               bitloom::cuda::gemm::stream_blocks(rows))       \
      matmul_##kind##_##name(const __grid_constant__ bitloom::cuda::gemm::ProductParams p) {   \
    bitloom::cuda::gemm::stream<__VA_ARGS__, rows>(p);                                         \
  }
#define BL_MATMUL_RARE_KERNEL(name, ...)                                                       \
  BL_MATMUL_PROMPT(name, __VA_ARGS__)                                                          \
  BL_MATMUL_STREAM(stream16, name, 16, __VA_ARGS__)
#define BL_MATMUL_KERNEL(name, ...)                                                            \
  BL_MATMUL_RARE_KERNEL(name, __VA_ARGS__)                                                     \
  BL_MATMUL_STREAM(stream, name, 8, __VA_ARGS__)
