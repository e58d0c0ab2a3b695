// attention: see decode.cuh (few rows) and prompt.cuh (many).
#include "decode.cuh"
#include "prompt.cuh"

extern __shared__ float4 attention_shared[];

// Of one row: told how many blocks are enough, ptxas spills nothing for one more (sm_100).
#define BL_CUDA_ATTENTION_DECODE(name, wide, rows, vectors)                                           \
  extern "C" __global__ void __launch_bounds__(bitloom::cuda::kDecodeWarps * 32, (rows) == 1 ? 5 : 0) \
      name(const __grid_constant__ bitloom::cuda::AttentionParams p) {                                \
    bitloom::cuda::decode<wide, rows, vectors>(p, reinterpret_cast<float*>(attention_shared));        \
  }
// Of sm_120, shared memory holds one block of attention_prompt_128, which needs two registers more there.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int kWideBlocks = 1;
#else
constexpr int kWideBlocks = 0;
#endif
#define BL_CUDA_ATTENTION_PROMPT(name, rows, columns, blocks)                                         \
  extern "C" __global__ void __launch_bounds__(bitloom::cuda::kPromptThreads, blocks)                 \
      name(const __grid_constant__ bitloom::cuda::AttentionParams p) {                                \
    bitloom::cuda::prompt<rows, columns>(p, reinterpret_cast<float*>(attention_shared));              \
  }
#include "kernels.inc"
#undef BL_CUDA_ATTENTION_DECODE
#undef BL_CUDA_ATTENTION_PROMPT

extern "C" __global__ void __launch_bounds__(128)
    attention_merge(const __grid_constant__ bitloom::cuda::AttentionParams p) {
  bitloom::cuda::merge_splits(p);
}
