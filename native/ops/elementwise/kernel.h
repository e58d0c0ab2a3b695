// The contract of elementwise kernels, and the run that all operators of the family share.
#pragma once

#include <cstdint>

#include "../../include/bitloom.h"

namespace bitloom {

enum class Elementwise { silu, gelu_erf, gelu_tanh, swiglu, add, mul };

// output[i] = op(left[i], right[i]), i in [0, count); output may be left or right itself. Operators of one
// argument do not read right. Each output depends on its own inputs only, whatever count is and wherever
// the element lies. Pure: no allocation, no threads, no errors.
//
// Error against the scalar kernel, relative to the result in units of 2^-24: add and mul 0, silu 8,
// swiglu 10, gelu_erf 14, gelu_tanh 12 + 8 |u|, u = sqrt(8 / pi) (x + 0.044715 x^3), whose rounding exp
// amplifies. In the far tail, where the exponential itself is subnormal, |x| * 2^-147 more (for swiglu times
// 1 + |right|; an infinite right gives NaN once the exponential is 0): below x = -87 for silu, -13 for
// gelu_erf, -10 for gelu_tanh.
using ElementwiseKernel = void (*)(const float* left, const float* right, float* output, int64_t count);

#define BL_ELEMENTWISE_KERNEL(op, isa)                                                \
  namespace isa {                                                                     \
  void op##_f32(const float* left, const float* right, float* output, int64_t count); \
  }
#include "kernels.inc"
#undef BL_ELEMENTWISE_KERNEL

// The kernel of `op` at a level, for operators that end with one.
ElementwiseKernel elementwise_kernel(Elementwise op, int32_t isa);

// A call whose views all have the shape of output; an axis along which right repeats has stride 0 there.
struct ElementwiseCall {
  Elementwise op;
  const char* name;  // "silu"
  bl_run run;
  bl_tensor left;
  bl_tensor right;  // data null for one argument
  bl_tensor output;
};

// Chooses a kernel, partitions, runs. The views are valid.
void run_elementwise(const ElementwiseCall& call);

bl_status check_unary(const char* name, const bl_tensor& x, const bl_tensor& output, bl_error* error);
// repeat: right's shape may be a suffix of left's.
bl_status check_binary(const char* name, bool repeat, const bl_binary_args& args, bl_error* error);
void run_binary(Elementwise op, const char* name, const bl_binary_args& args);  // args have been checked

}  // namespace bitloom
