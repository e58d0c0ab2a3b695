// The contract of rope kernels.
#pragma once

#include <cstdint>

#include "../../include/bitloom.h"

namespace bitloom {

// Rotates the pairs of one head, for i in [0, pairs), with a = x[i], b = x[i + pairs] (half) or
// a = x[2i], b = x[2i + 1] (interleaved):
//   a' = a * cosine[i] - b * sine[i],  b' = a * sine[i] + b * cosine[i]
// Four products and two sums, each rounded to f32 and never fused, so that every kernel gives the same
// bits. y may be x, else the two lie apart.
using RopeKernel = void (*)(const float* x, const float* cosine, const float* sine, int64_t pairs, float* y);

struct RopeKernelRow {
  const char* name;
  int32_t isa;
  int32_t mode;  // bl_rope_mode
  RopeKernel run;
};

#define BL_ROPE_KERNEL(isa, mode)                                                                    \
  namespace isa {                                                                                    \
  void rope_##mode(const float* x, const float* cosine, const float* sine, int64_t pairs, float* y); \
  }
#include "kernels.inc"
#undef BL_ROPE_KERNEL

}  // namespace bitloom
