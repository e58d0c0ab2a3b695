// Candidates of sampling as integers in their order: logit descending, id ascending.
#pragma once

#include "config.h"

namespace bitloom::cuda {

__device__ __forceinline__ uint64_t key_of(float logit, int64_t id) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);  // -0 and 0 are equal
  if (bits == 0xff800000u) return 0;                    // -infinity is no candidate
  const uint32_t ordered = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}

__device__ __forceinline__ float logit_of(uint64_t key) {
  const uint32_t ordered = static_cast<uint32_t>(key >> 32);
  return __uint_as_float(ordered >> 31 != 0 ? ordered & 0x7fffffffu : ~ordered);
}

__device__ __forceinline__ int32_t id_of(uint64_t key) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
}

// exp((logit - largest) / temperature); equal logits first, which also makes infinite ones share everything.
__device__ __forceinline__ double weight_of(uint64_t key, float largest, double temperature) {
  const float logit = logit_of(key);
  return logit == largest ? 1.0 : exp((static_cast<double>(logit) - largest) / temperature);
}

// Divides positive and multiplies negative logits; finite ones stay finite.
__device__ __forceinline__ float penalized(float logit, double penalty) {
  if (isinf(logit)) return logit;
  const double value = logit > 0.0f ? logit / penalty : logit * penalty;
  constexpr double kLargest = 3.4028234663852886e38;
  return static_cast<float>(fmin(fmax(value, -kLargest), kLargest));
}

}  // namespace bitloom::cuda
