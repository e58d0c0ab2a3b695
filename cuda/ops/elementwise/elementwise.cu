// silu, gelu, swiglu, add, mul: output[i] = op(left[i], right[i]). Blocks along x share a row, along y take rows.
#include "../../tile/math.cuh"
#include "../../tile/typed.cuh"
#include "config.h"

namespace bitloom::cuda {

// 8 elements of a thread at a time: 16 or 32 bytes per operand, all of them loaded before the first is used.
template <bool kBinary, typename Op>
__device__ __forceinline__ void run_wide(const ElementwiseParams& p, Op op) {
  const int64_t vectors = p.rows.length / kVector;
#pragma unroll 1
  for (int64_t row = blockIdx.y; row < p.rows.count; row += gridDim.y) {
    const char* left = row_at(p.rows, p.left, row);
    const char* right = kBinary ? row_at(p.rows, p.right, row) : nullptr;
    char* output = row_at(p.rows, p.output, row);
#pragma unroll 1
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < vectors;
         i += int64_t{gridDim.x} * blockDim.x) {
      const Raw a = load_raw(p.left.dtype, left, i * kVector);
      Raw b = a;
      if (kBinary) b = load_raw(p.right.dtype, right, i * kVector);
      float x[kVector], y[kVector];
      unpack(p.left.dtype, a, x);
      if (kBinary) unpack(p.right.dtype, b, y);
#pragma unroll
      for (int j = 0; j < kVector; ++j) x[j] = op(x[j], kBinary ? y[j] : 0.0f);
      store_vector(p.output.dtype, output, i * kVector, x);
    }
  }
}

// Any strides, one element of a thread at a time.
template <bool kBinary, typename Op>
__device__ __forceinline__ void run_plain(const ElementwiseParams& p, Op op) {
#pragma unroll 1
  for (int64_t row = blockIdx.y; row < p.rows.count; row += gridDim.y) {
    const char* left = row_at(p.rows, p.left, row);
    const char* right = kBinary ? row_at(p.rows, p.right, row) : nullptr;
    char* output = row_at(p.rows, p.output, row);
#pragma unroll 1
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.rows.length;
         i += int64_t{gridDim.x} * blockDim.x) {
      const float x = load_element(p.left.dtype, left, i * p.left.stride);
      const float y = kBinary ? load_element(p.right.dtype, right, i * p.right.stride) : 0.0f;
      store_element(p.output.dtype, output, i * p.output.stride, op(x, y));
    }
  }
}

}  // namespace bitloom::cuda

#define BL_CUDA_ELEMENTWISE(name, is_binary, value)                                                              \
  extern "C" __global__ void __launch_bounds__(bitloom::cuda::kElementwiseThreads)                               \
      elementwise_##name##_wide(const __grid_constant__ bitloom::cuda::ElementwiseParams p) {                    \
    using namespace bitloom::cuda;                                                                               \
    run_wide<is_binary>(p, [](float x, [[maybe_unused]] float y) { return value; });                             \
  }                                                                                                              \
  extern "C" __global__ void __launch_bounds__(bitloom::cuda::kElementwiseThreads)                               \
      elementwise_##name##_plain(const __grid_constant__ bitloom::cuda::ElementwiseParams p) {                   \
    using namespace bitloom::cuda;                                                                               \
    run_plain<is_binary>(p, [](float x, [[maybe_unused]] float y) { return value; });                            \
  }
#include "kernels.inc"
#undef BL_CUDA_ELEMENTWISE
