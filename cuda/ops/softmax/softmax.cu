// softmax: a block per row; one pass for the maximum, one for the sum, one for the results, of which the last two find
// the row in cache. t = |scale| * (s x - max(s x)), s the sign of scale. Error relative (2 |t| + length / (8 threads)
// + 24) * 2^-24. NaN, an s x of +infinity, or only -infinity make the whole row NaN.
#include "../../tile/reduce.cuh"
#include "../../tile/typed.cuh"
#include "config.h"

namespace bitloom::cuda {
namespace {

// Calls body(i, s * x) for this thread's elements of the row; kWide: in vectors.
template <bool kWide, typename Body>
__device__ __forceinline__ void each(const SoftmaxParams& p, const char* x, float sign, Body body) {
  if (kWide) {
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < p.rows.length / kVector; i += blockDim.x) {
      float values[kVector];
      load_vector(p.x.dtype, x, i * kVector, values);
#pragma unroll
      for (int j = 0; j < kVector; ++j) values[j] *= sign;
      body(i * kVector, values);
    }
  } else {
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < p.rows.length; i += blockDim.x) {
      float values[1] = {sign * load_element(p.x.dtype, x, i * p.x.stride)};
      body(i, values);
    }
  }
}

template <bool kWide>
__device__ __forceinline__ void softmax_row(const SoftmaxParams& p, const char* x, char* output) {
  __shared__ float shared[32];
  constexpr int kCount = kWide ? kVector : 1;
  const float sign = p.scale < 0.0f ? -1.0f : 1.0f, magnitude = fabsf(p.scale);
  float largest = -__int_as_float(0x7f800000);
  each<kWide>(p, x, sign, [&](int64_t, const auto& values) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) largest = fmaxf(largest, values[j]);
  });
  largest = block_reduce(largest, -__int_as_float(0x7f800000), Max{}, shared);
  float parts[kCount] = {};
  each<kWide>(p, x, sign, [&](int64_t, const auto& values) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) parts[j] += expf(magnitude * (values[j] - largest));
  });
  float sum = parts[0];
#pragma unroll
  for (int j = 1; j < kCount; ++j) sum += parts[j];
  sum = block_reduce(sum, 0.0f, Sum{}, shared);
  each<kWide>(p, x, sign, [&](int64_t i, const auto& values) {
    float results[kCount];
#pragma unroll
    for (int j = 0; j < kCount; ++j) results[j] = expf(magnitude * (values[j] - largest)) / sum;
    if constexpr (kWide) {
      store_vector(p.output.dtype, output, i, results);
    } else {
      store_element(p.output.dtype, output, i * p.output.stride, results[0]);
    }
  });
}

}  // namespace
}  // namespace bitloom::cuda

#define BL_CUDA_SOFTMAX(name, is_wide)                                                                \
  extern "C" __global__ void __launch_bounds__(bitloom::cuda::kSoftmaxMaxThreads)                     \
      name(const __grid_constant__ bitloom::cuda::SoftmaxParams p) {                                  \
    using namespace bitloom::cuda;                                                                    \
    _Pragma("unroll 1") \
    for (int64_t row = blockIdx.x; row < p.rows.count; row += gridDim.x)                              \
      softmax_row<is_wide>(p, row_at(p.rows, p.x, row), row_at(p.rows, p.output, row));               \
  }
BL_CUDA_SOFTMAX(softmax_wide, true)
BL_CUDA_SOFTMAX(softmax_plain, false)
#undef BL_CUDA_SOFTMAX
