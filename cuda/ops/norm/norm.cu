// rms_norm and layer_norm: a block per row. Rows are read once per pass; passes after the first find them in cache.
//
// Sums are f32, each thread's in eight interleaved parts, then a tree. Error: rms_norm relative
// (length / (16 threads) + 20) * 2^-24; layer_norm that of n (normalized element) times (1 + |n|) |weight|, plus
// 2^-22 |bias|. A row whose squares leave f32's range, or lose bits at its lower end, is done again in f64, also one
// with infinities or NaN: then a NaN makes the whole row NaN, an infinity gives rms_norm 0 for the finite elements.
#include "../../tile/reduce.cuh"
#include "../../tile/typed.cuh"
#include "config.h"

namespace bitloom::cuda {
namespace {

// Calls body(i, x) for this thread's elements of the row; kWide: in vectors.
template <bool kWide, typename Body>
__device__ __forceinline__ void each(const NormParams& p, const char* x, Body body) {
  if (kWide) {
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < p.rows.length / kVector; i += blockDim.x) {
      float values[kVector];
      load_vector(p.x.dtype, x, i * kVector, values);
      body(i * kVector, values);
    }
  } else {
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < p.rows.length; i += blockDim.x) {
      float values[1] = {load_element(p.x.dtype, x, i * p.x.stride)};
      body(i, values);
    }
  }
}

template <int kCount>
__device__ __forceinline__ float sum_of(const float (&parts)[kCount]) {
  float sum = parts[0];
#pragma unroll
  for (int i = 1; i < kCount; ++i) sum += parts[i];
  return sum;
}

// A sum of squares that is a good f32: no overflow, and no square that mattered was subnormal.
__device__ __forceinline__ bool is_safe(float sum) { return sum >= 0x1p-90f && sum <= 0x1p120f; }

// Elements [i, i + n) times weight plus bias, written.
template <bool kWide, int kCount, typename T>
__device__ __forceinline__ void finish(const NormParams& p, char* output, int64_t i, const T (&normalized)[kCount]) {
  float weight[kCount], bias[kCount], values[kCount];
#pragma unroll
  for (int j = 0; j < kCount; ++j) weight[j] = 1.0f, bias[j] = 0.0f;
  if constexpr (kWide) {
    if (p.weight.data != nullptr) load_vector(p.weight.dtype, p.weight.data, i, weight);
    if (p.bias.data != nullptr) load_vector(p.bias.dtype, p.bias.data, i, bias);
  } else {
    if (p.weight.data != nullptr) weight[0] = load_element(p.weight.dtype, p.weight.data, i);
    if (p.bias.data != nullptr) bias[0] = load_element(p.bias.dtype, p.bias.data, i);
  }
#pragma unroll
  for (int j = 0; j < kCount; ++j) values[j] = static_cast<float>(normalized[j] * weight[j] + bias[j]);
  if constexpr (kWide) {
    store_vector(p.output.dtype, output, i, values);
  } else {
    store_element(p.output.dtype, output, i * p.output.stride, values[0]);
  }
}

// One row with everything in f64; kMean: layer_norm.
template <bool kWide, bool kMean>
__device__ __forceinline__ void careful_row(const NormParams& p, const char* x, char* output) {
  __shared__ double shared[32];
  double mean = 0, squares = 0;
  const double length = static_cast<double>(p.rows.length);
  if (kMean) {
    double sum = 0;
    each<kWide>(p, x, [&](int64_t, const auto& values) {
      for (float value : values) sum += value;
    });
    mean = block_reduce(sum, 0.0, Sum{}, shared) / length;
  }
  each<kWide>(p, x, [&](int64_t, const auto& values) {
    for (float value : values) squares += (value - mean) * (value - mean);
  });
  const double scale = 1.0 / sqrt(block_reduce(squares, 0.0, Sum{}, shared) / length + p.epsilon);
  each<kWide>(p, x, [&](int64_t i, const auto& values) {
    constexpr int kCount = kWide ? kVector : 1;
    double normalized[kCount];
    for (int j = 0; j < kCount; ++j) normalized[j] = (values[j] - mean) * scale;
    finish<kWide>(p, output, i, normalized);
  });
}

template <bool kWide>
__device__ __forceinline__ void rms_norm_row(const NormParams& p, const char* x, char* output) {
  __shared__ float shared[32];
  constexpr int kCount = kWide ? kVector : 1;
  float parts[kCount] = {};
  each<kWide>(p, x, [&](int64_t, const auto& values) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) parts[j] = fmaf(values[j], values[j], parts[j]);
  });
  const float squares = block_reduce(sum_of(parts), 0.0f, Sum{}, shared);
  if (!is_safe(squares)) return careful_row<kWide, false>(p, x, output);
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(p.rows.length) + p.epsilon);
  each<kWide>(p, x, [&](int64_t i, const auto& values) {
    float normalized[kCount];
#pragma unroll
    for (int j = 0; j < kCount; ++j) normalized[j] = values[j] * scale;
    finish<kWide>(p, output, i, normalized);
  });
}

// Deviations are taken from `near`, the f32 mean, and corrected by their own mean: what rounding the mean lost does
// not matter then, however large the mean is beside the deviations.
template <bool kWide>
__device__ __forceinline__ void layer_norm_row(const NormParams& p, const char* x, char* output) {
  __shared__ float shared[32];
  constexpr int kCount = kWide ? kVector : 1;
  const float length = static_cast<float>(p.rows.length);
  float parts[kCount] = {};
  each<kWide>(p, x, [&](int64_t, const auto& values) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) parts[j] += values[j];
  });
  const float near = block_reduce(sum_of(parts), 0.0f, Sum{}, shared) / length;
  float sums[kCount] = {}, squares[kCount] = {};
  each<kWide>(p, x, [&](int64_t, const auto& values) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const float deviation = values[j] - near;
      sums[j] += deviation;
      squares[j] = fmaf(deviation, deviation, squares[j]);
    }
  });
  const float rest = block_reduce(sum_of(sums), 0.0f, Sum{}, shared) / length;
  const float total = block_reduce(sum_of(squares), 0.0f, Sum{}, shared);
  if (!is_safe(total)) return careful_row<kWide, true>(p, x, output);
  const float variance = fmaxf(total / length - rest * rest, 0.0f);
  const float scale = 1.0f / sqrtf(variance + p.epsilon);
  each<kWide>(p, x, [&](int64_t i, const auto& values) {
    float normalized[kCount];
#pragma unroll
    for (int j = 0; j < kCount; ++j) normalized[j] = (values[j] - near - rest) * scale;
    finish<kWide>(p, output, i, normalized);
  });
}

}  // namespace
}  // namespace bitloom::cuda

#define BL_CUDA_NORM(op, wide)                                                           \
  extern "C" __global__ void __launch_bounds__(bitloom::cuda::kNormMaxThreads)           \
      op##_##wide(const __grid_constant__ bitloom::cuda::NormParams p) {                 \
    using namespace bitloom::cuda;                                                       \
    _Pragma("unroll 1") \
    for (int64_t row = blockIdx.x; row < p.rows.count; row += gridDim.x)                 \
      op##_row<wide>(p, row_at(p.rows, p.x, row), row_at(p.rows, p.output, row));        \
  }
namespace {
constexpr bool plain = false, wide = true;
}
BL_CUDA_NORM(rms_norm, wide)
BL_CUDA_NORM(rms_norm, plain)
BL_CUDA_NORM(layer_norm, wide)
BL_CUDA_NORM(layer_norm, plain)
#undef BL_CUDA_NORM
