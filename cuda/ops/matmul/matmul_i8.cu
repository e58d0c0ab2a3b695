// The module `matmul_i8`: products of int8.
#include "prepare_i8.cuh"
#include "prompt_i8.cuh"
#include "stream_i8.cuh"

using namespace bitloom::cuda;
using namespace bitloom::cuda::gemm;

// Blocks of the stream kernel on a multiprocessor: with scales and offsets of two units, or four units, 128 registers.
template <class Codes>
constexpr int integer_blocks() {
  return Codes::kCentred && Codes::kWords == 8 ? 3 : 2;
}

#define BL_PROMPT_KERNEL(steps, name, ...)                                  \
  extern "C" __global__ void __launch_bounds__(kPromptThreads, 2)            \
      matmul_prompt_##steps##_##name(const __grid_constant__ IntegerParams p) { \
    IntegerPromptTile<__VA_ARGS__, Steps::steps>(p).run();                  \
  }
#define BL_STREAM_KERNEL(steps, name, ...)                                  \
  extern "C" __global__ void __launch_bounds__(32 * kIntegerStreamWarps, integer_blocks<__VA_ARGS__>())                      \
      matmul_stream_##steps##_##name(const __grid_constant__ IntegerParams p) { \
    IntegerStreamTile<__VA_ARGS__, Steps::steps == Steps::whole>(p).run();  \
  }
#define BL_INTEGER_KERNEL(name, ...)          \
  BL_PROMPT_KERNEL(fine, name, __VA_ARGS__) \
  BL_STREAM_KERNEL(fine, name, __VA_ARGS__)
#define BL_INTEGER_ROW_KERNEL(name, ...)       \
  BL_PROMPT_KERNEL(coarse, name, __VA_ARGS__) \
  BL_PROMPT_KERNEL(whole, name, __VA_ARGS__)  \
  BL_STREAM_KERNEL(whole, name, __VA_ARGS__)
#include "kernels_i8.inc"

extern "C" __global__ void __launch_bounds__(kPrepareThreads)
    matmul_integer_rows(const __grid_constant__ IntegerRowsParams p) {
  integer_rows(p);
}

extern "C" __global__ void __launch_bounds__(256) matmul_collect(const __grid_constant__ CollectParams p) { collect(p); }
