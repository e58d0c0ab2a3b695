// What happens to products on their way into c: the device's counterpart of native/ops/matmul/epilogue.cc.
#pragma once

#include "../../tile/elements.cuh"
#include "../../tile/math.cuh"
#include "config.h"

namespace bitloom::cuda::gemm {

// sum_i values[i] a[m, columns[i]] over the outliers of row n of b.
__device__ __forceinline__ float outlier_sum(const Epilogue& e, int m, int n) {
  float sum = 0;
  // Kept within their memory: nobody has looked at these numbers.
  const int end = min(e.row_offsets[n + 1], e.outliers);
  for (int i = max(e.row_offsets[n], 0); i < end; ++i) {
    const int column = min(max(e.columns[i], 0), e.a_columns - 1);
    sum = fmaf(load_float(e.values_dtype, e.values, i),
               load_float(e.a_dtype, e.a, m * e.a_row + column * e.a_column), sum);
  }
  return sum;
}

// The product of what was given, from that of a's row as it was prepared and, where kPrepared, b in its unit.
template <bool kPrepared = true>
__device__ __forceinline__ float given_product(const Epilogue& e, float product, int m) {
  if (kPrepared) product *= e.header[1];
  return e.row_factors != nullptr ? product * e.row_factors[m] : product;
}

// y[m, n] from the product.
__device__ __forceinline__ float finish_sum(const Epilogue& e, float product, int m, int n) {
  float y = product;
  if (e.row_scale != nullptr) y *= e.row_scale[n];
  y *= e.scale;
  if (e.addend != nullptr) y += load_float(e.addend_dtype, e.addend, m * e.addend_row + n * e.addend_column);
  if (e.bias != nullptr) y += e.bias[n];
  return y;
}

__device__ __forceinline__ float activate(int activation, float y) {
  if (activation == BL_ACTIVATION_silu) return silu(y);
  if (activation == BL_ACTIVATION_gelu) return gelu_erf(y);
  if (activation == BL_ACTIVATION_gelu_tanh) return gelu_tanh(y);
  if (activation == BL_ACTIVATION_relu) return y < 0 ? 0 : y;  // NaN stays
  return y;
}

__device__ __forceinline__ float add_residual(const Epilogue& e, float value, int m, int n) {
  if (e.residual == nullptr) return value;
  return value + load_float(e.residual_dtype, e.residual, m * e.residual_row + n * e.residual_column);
}

// c[m, n] of a float type, where the products are all there is: no gate, low-rank or sparse terms. kPrepared: as
// given_product has it.
template <bool kPrepared = true>
__device__ __forceinline__ void store_product(const Epilogue& e, float product, int m, int n) {
  const float given = given_product<kPrepared>(e, product, m);
  const float value = add_residual(e, activate(e.activation, finish_sum(e, given, m, n)), m, n);
  store_from_f32(e.c_dtype, e.c, m * e.c_row + n * e.c_column, value);
}

// Partial sums of all splits, in their order; y with everything that is added to it.
__device__ __forceinline__ float gather_sum(const FinishParams& p, int m, int n) {
  const Epilogue& e = p.epilogue;
  float product = 0;
  for (int split = 0; split < p.splits; ++split) {
    product += p.partial[(static_cast<int64_t>(split) * p.m + m) * p.n + n];
  }
  product = e.header != nullptr ? given_product<true>(e, product, m) : given_product<false>(e, product, m);
  float y = finish_sum(e, product, m, n);
  const int64_t id = e.low_ids != nullptr ? e.low_ids[m] : 0;
  if (e.low != nullptr && id >= 0 && id < e.adapters) {
    float sum = 0;
    for (int r = 0; r < e.rank; ++r) {
      sum = fmaf(load_float(e.up_dtype, e.up, id * e.up_adapter + n * e.up_row + r * e.up_column),
                 e.low[static_cast<int64_t>(m) * e.rank + r], sum);
    }
    y = fmaf(e.low_scale, sum, y);
  }
  return e.row_offsets != nullptr ? y + outlier_sum(e, m, n) : y;
}

__device__ __forceinline__ float output_of(const FinishParams& p, int m, int n) {
  const Epilogue& e = p.epilogue;
  float value = gather_sum(p, m, n);
  if (e.gated_columns != 0) {
    const float up = gather_sum(p, m, n + e.gated_columns);
    value = (e.activation == BL_ACTIVATION_swiglu ? silu(value) : gelu_erf(value)) * up;
  } else {
    value = activate(e.activation, value);
  }
  return add_residual(e, value, m, n);
}

// 32 outputs of a row, one per lane, as int8 with a scale.
__device__ __forceinline__ void store_codes(const FinishParams& p, float value, int m, int n) {
  const Epilogue& e = p.epilogue;
  const bool there = n < p.columns;
  int8_t* to = static_cast<int8_t*>(e.c) + m * e.c_row + n * e.c_column;
  if (e.c_scales == nullptr) {  // NaN as 0, infinities as the largest float
    const float finite = value != value ? 0 : fminf(fmaxf(value, -3.4028234664e38f), 3.4028234664e38f);
    const float code = rintf(fminf(fmaxf(finite * e.code_scale, -127.0f), 127.0f));
    if (there) *to = static_cast<int8_t>(code);
    return;
  }
  float largest = there ? fabsf(value) : 0;
  bool finite = largest <= 3.4028234664e38f;
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, distance));
  }
  finite = __all_sync(~0u, finite);
  // Below 127 * FLT_MIN the reciprocal overflows; such a group counts as zero.
  const float inverse = largest < 1.5e-36f ? 0 : 127.0f / largest;
  if (there) *to = finite ? static_cast<int8_t>(rintf(value * inverse)) : 0;
  if (threadIdx.x == 0) {
    const float scale = !finite ? __uint_as_float(0x7fc00000u) : inverse == 0 ? 0 : largest / 127.0f;
    static_cast<float*>(e.c_scales)[m * e.c_scales_row + n / 32 * e.c_scales_column] = scale;
  }
}

// Blocks of (32, 4): a warp has 32 columns of a row of c.
__device__ __forceinline__ void finish(const FinishParams& p) {
  const int n = blockIdx.x * 32 + threadIdx.x;
  for (int m = blockIdx.y * 4 + threadIdx.y; m < p.m; m += gridDim.y * 4) {
    const float value = n < p.columns ? output_of(p, m, n) : 0;
    if (p.epilogue.c_dtype == BL_DTYPE_i8) {
      store_codes(p, value, m, n);
    } else if (n < p.columns) {
      store_from_f32(p.epilogue.c_dtype, p.epilogue.c, m * p.epilogue.c_row + n * p.epilogue.c_column, value);
    }
  }
}

}  // namespace bitloom::cuda::gemm
