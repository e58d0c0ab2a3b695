// Sums of an mma of 32 columns: how they begin, and the float that is in them.
#pragma once

#include "config_i8.h"

namespace bitloom::cuda::gemm {

template <class Product>
struct ProductSums;

// Integers begin at kMagic's bits, and so are floats as they come out; `start`: kMagic, with what zeros add.
template <>
struct ProductSums<int32_t> {
  __device__ static int32_t first() { return __float_as_int(kMagic); }
  __device__ static float value(int32_t sum, float start) { return __int_as_float(sum) - start; }
};
template <>
struct ProductSums<float> {
  __device__ static float first() { return 0; }
  __device__ static float value(float sum, float) { return sum; }
};

}  // namespace bitloom::cuda::gemm
