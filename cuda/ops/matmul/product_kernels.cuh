// A row of kernels.inc or kernels_bf16.inc as a prompt and a stream kernel.
#pragma once

#include "prompt.cuh"
#include "stream.cuh"

#define BL_MATMUL_KERNEL(name, ...)                                                               \
  extern "C" __global__ void __launch_bounds__(bitloom::cuda::gemm::kPromptThreads)                                    \
      matmul_prompt_##name(const __grid_constant__ bitloom::cuda::gemm::ProductParams p) {                             \
    bitloom::cuda::gemm::PromptTile<__VA_ARGS__>(p).run(); \
  }                                                                                               \
  extern "C" __global__ void __launch_bounds__(32 * bitloom::cuda::gemm::kStreamWarps, 2)                                            \
      matmul_stream_##name(const __grid_constant__ bitloom::cuda::gemm::ProductParams p) {                             \
    bitloom::cuda::gemm::stream<__VA_ARGS__>(p);                                                                   \
  }
