// The module `matmul`: one name per kernel.
#include "prepare_e4m3.cuh"
#include "product_kernels.cuh"

using namespace bitloom::cuda;
using namespace bitloom::cuda::gemm;

#include "kernels.inc"

extern "C" __global__ void __launch_bounds__(128, 10) matmul_finish(const __grid_constant__ FinishParams p) { finish(p); }

extern "C" __global__ void __launch_bounds__(kPrepareThreads)
    matmul_prepare(const __grid_constant__ PrepareParams p) {
  prepare_row(p);
}

extern "C" __global__ void __launch_bounds__(kPrepareWideThreads)
    matmul_prepare_wide(const __grid_constant__ PrepareParams p) {
  prepare_wide_row(p);
}

extern "C" __global__ void __launch_bounds__(kPrepareThreads)
    matmul_prepare_e4m3(const __grid_constant__ PrepareParams p) {
  prepare_e4m3_row(p);
}

extern "C" __global__ void __launch_bounds__(kPrepareThreads)
    matmul_unpack(const __grid_constant__ UnpackParams p) {
  unpack_unit(p);
}

extern "C" __global__ void __launch_bounds__(kPrepareThreads)
    matmul_low_rank(const __grid_constant__ LowRankParams p) {
  low_rank(p);
}
