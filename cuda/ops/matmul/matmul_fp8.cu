// The module `matmul_fp8`: products of e4m3, by the tiles of the int8 products. Only for devices whose mma.sync has them
// in hardware (sm_89, sm_120): the others convert to f16 for it, which the kernels of matmul_bf16 do better.
#include "../../tile/fp8_codes.cuh"
#include "prepare_e4m3.cuh"
#include "prompt_i8.cuh"
#include "stream_i8.cuh"

using namespace bitloom::cuda;
using namespace bitloom::cuda::gemm;

#define BL_FP8_PROMPT(steps, name, ...)                                       \
  extern "C" __global__ void __launch_bounds__(kPromptThreads, 2)             \
      matmul_prompt_##steps##_fp8_##name(const __grid_constant__ IntegerParams p) { \
    IntegerPromptTile<__VA_ARGS__, Steps::steps>(p).run();                    \
  }
#define BL_FP8_KERNEL(name, ...)                                                            \
  BL_FP8_PROMPT(fine, name, __VA_ARGS__)                                                    \
  BL_FP8_PROMPT(coarse, name, __VA_ARGS__)                                                  \
  extern "C" __global__ void __launch_bounds__(32 * kIntegerStreamWarps, 2)                 \
      matmul_stream_fine_fp8_##name(const __grid_constant__ IntegerParams p) {              \
    IntegerStreamTile<__VA_ARGS__, false>(p).run();                                         \
  }
#include "kernels_fp8.inc"

extern "C" __global__ void __launch_bounds__(kPrepareThreads)
    matmul_fp8_rows(const __grid_constant__ IntegerRowsParams p) {
  fp8_rows(p);
}
