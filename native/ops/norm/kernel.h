// The contract of norm kernels, and the run that both operators share.
#pragma once

#include <cstdint>

#include "../../include/bitloom.h"

namespace bitloom {

enum class Norm { rms_norm, layer_norm };

// Normalizes one row x [count], count >= 1, into output [count], which may be x itself.
//   rms_norm:   output = x / sqrt(mean(x^2) + epsilon) * weight; bias is not read
//   layer_norm: output = (x - mean) / sqrt(variance + epsilon) * weight + bias, variance = mean((x - mean)^2)
// weight and bias [count] or null: ones and zeros. Pure: no allocation, no threads, no errors.
//
// Error of the vector kernels against the scalar one: 2^-18 (1 + |n|) |weight| + 2^-22 |bias|, n the
// normalized element, from sums in f32 within blocks of 1024 (worst case; in practice a tenth). Rows whose
// sums leave the range of f32, or are so small that squares lose bits, are left to the scalar kernel, and so
// are infinities and NaN: a row with NaN gives NaN, a row with an infinity gives rms_norm 0 for its finite
// elements and NaN for the infinite ones, layer_norm NaN.
using NormKernel = void (*)(const float* x, const float* weight, const float* bias, float* output,
                            int64_t count, float epsilon);

#define BL_NORM_KERNEL(op, isa)                                                                       \
  namespace isa {                                                                                     \
  void op##_f32(const float* x, const float* weight, const float* bias, float* output, int64_t count, \
                float epsilon);                                                                       \
  }
#include "kernels.inc"
#undef BL_NORM_KERNEL

// The kernel of a call, for operators that normalize rows on their way.
NormKernel norm_kernel(Norm op, const char* name, const bl_run& run, int64_t rows, int64_t length);

// A norm over the last axis of x; see bl_rms_norm_args and bl_layer_norm_args. bias.data null for rms_norm.
struct NormCall {
  Norm op;
  const char* name;  // "rms_norm"
  bl_run run;
  bl_tensor x;       // [..., D]
  bl_tensor weight;  // [D] or data null
  bl_tensor bias;    // [D] or data null
  bl_tensor output;  // [..., D]
  float epsilon;
};
bl_status check_norm(const NormCall& call, bl_error* error);
bl_status run_norm(const NormCall& call, bl_error* error);  // of a call that has been checked

}  // namespace bitloom
