// kv_append, kv_gather and nearest_keys at level neon: tokens.inl, nearest.inl.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "../../formats/elements.h"
#include "kernel.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../../isa/neon_begin.h"
#include "../../isa/simd_neon.inl"

namespace {

// Lanes, -128 to 127, to the nearest whole numbers, to even on a tie, as bytes.
inline void store_codes(Vec x, uint8_t* to) {
  const int16x8_t words = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(x.low)), vmovn_s32(vcvtnq_s32_f32(x.high)));
  vst1_s8(reinterpret_cast<int8_t*>(to), vmovn_s16(words));
}
inline Vec load_half(const uint16_t* p) {
  const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(p));
  return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
}
inline void store_half(Vec x, uint16_t* to) {
  vst1q_u16(to, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.low), x.high)));
}

}  // namespace

// In this order, hence apart: a formatter sorts what stands together.
#include "places.inl"

#include "tokens.inl"

#include "nearest.inl"

#include "../../isa/end.h"
#endif  // __aarch64__
