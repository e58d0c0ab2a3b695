// The contract of softmax kernels.
#pragma once

#include <cstdint>

#include "../../include/bitloom.h"

namespace bitloom {

enum class Softmax { softmax };

// output[i] = exp(t[i]) / sum_j exp(t[j]), t[i] = scale * x[i] - max_j(scale * x[j]), of one row x [count],
// count >= 1; output [count] may be x itself. scale is finite and not 0.
//
// t is computed as |scale| * (s * x[i] - max_j(s * x[j])), s the sign of scale: no product can overflow
// that matters. A NaN or an s * x of +infinity anywhere, or only -infinity, makes the whole row NaN; an
// s * x of -infinity beside a finite value gives 0. Pure: no allocation, no threads, no errors.
//
// Error of the vector kernels against the scalar one: relative (2 |t| + 48) * 2^-24, of results in the
// normal range: t has two roundings, which exp amplifies, and a sum has up to 37 in a row (in practice
// their errors cancel to a few units).
using SoftmaxKernel = void (*)(const float* x, float* output, int64_t count, float scale);

#define BL_SOFTMAX_KERNEL(op, isa)                                          \
  namespace isa {                                                           \
  void op##_f32(const float* x, float* output, int64_t count, float scale); \
  }
#include "kernels.inc"
#undef BL_SOFTMAX_KERNEL

}  // namespace bitloom
