// The kernels of row_kernels.inl at level neon.
#include <cstdint>

#include "row_kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>

// clang-format off: the order of these is their meaning
#include "../../isa/neon_begin.h"
#include "../../isa/simd_neon.inl"
#include "../../isa/simd_math.inl"

// Eight values within int8 to nearest even.
static inline void encode_vec(Vec x, int8_t* codes) {
  const int16x8_t words = vmovn_high_s32(vmovn_s32(vcvtnq_s32_f32(x.low)), vcvtnq_s32_f32(x.high));
  vst1_s8(codes, vmovn_s16(words));
}
// The first n lanes; the others are 0.
static inline Vec gather_first(const float* x, const int32_t* columns, int64_t n) {
  float lanes[Vec::kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = x[columns[i]];
  return Vec::load(lanes);
}
static inline Vec gather(const float* x, const int32_t* columns) { return gather_first(x, columns, Vec::kLanes); }
// Byte j of the word has at bit v whether x[4v + j] >= 0: four vectors of compares, shifted into place.
static inline uint32_t sign_word(const float* x) {
  uint32x4_t bits = vdupq_n_u32(0);
#pragma GCC unroll 8
  for (int v = 0; v < 8; ++v) {
    bits = vorrq_u32(bits, vandq_u32(vcgezq_f32(vld1q_f32(x + 4 * v)), vdupq_n_u32(1u << v)));
  }
  const uint16x4_t words = vmovn_u32(bits);
  return vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(words, words))), 0);
}

#include "row_kernels.inl"
#include "../../isa/end.h"
// clang-format on
#endif  // __aarch64__
