// The module `matmul`: one name per kernel.
#include "prepare.cuh"
#include "prompt.cuh"
#include "stream.cuh"

using namespace bitloom::cuda;
using namespace bitloom::cuda::gemm;

#define BL_MATMUL_KERNEL(name, ...)                                                               \
  extern "C" __global__ void __launch_bounds__(kPromptThreads)                                    \
      matmul_prompt_##name(const __grid_constant__ ProductParams p) {                             \
    PromptTile<__VA_ARGS__>(p).run();                                                                   \
  }                                                                                               \
  extern "C" __global__ void __launch_bounds__(512, 2)                                            \
      matmul_stream_##name(const __grid_constant__ ProductParams p) {                             \
    StreamTile<__VA_ARGS__>(p).run();                                                                   \
  }
#include "kernels.inc"

extern "C" __global__ void __launch_bounds__(128) matmul_finish(const __grid_constant__ FinishParams p) { finish(p); }

extern "C" __global__ void __launch_bounds__(kPrepareThreads)
    matmul_prepare(const __grid_constant__ PrepareParams p) {
  prepare_row(p);
}

extern "C" __global__ void __launch_bounds__(kPrepareThreads)
    matmul_unpack(const __grid_constant__ UnpackParams p) {
  unpack_unit(p);
}

extern "C" __global__ void __launch_bounds__(kPrepareThreads)
    matmul_low_rank(const __grid_constant__ LowRankParams p) {
  low_rank(p);
}
