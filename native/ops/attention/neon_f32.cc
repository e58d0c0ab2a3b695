// attention at level neon: core.inl with vectors of 8, in two registers.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "kernel.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../../isa/neon_begin.h"
#include "../../isa/simd_neon.inl"
#include "../../isa/simd_math.inl"
#include "../../isa/transpose_neon.inl"

namespace {

template <int32_t kType>
inline Vec load_vec(const uint8_t* p) {
  if constexpr (kType == BL_DTYPE_f32) {
    return Vec::load(reinterpret_cast<const float*>(p));
  } else {
    const uint16x8_t bits = vreinterpretq_u16_u8(vld1q_u8(p));
    if constexpr (kType == BL_DTYPE_f16) {
      const float16x8_t halves = vreinterpretq_f16_u16(bits);
      return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
    }
    return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(bits), 16)),
            vreinterpretq_f32_u32(vshll_high_n_u16(bits, 16))};
  }
}

// The first `count` < kLanes values, then zeros; reads no further.
template <int32_t kType>
inline Vec load_vec(const uint8_t* p, int64_t count) {
  alignas(32) uint8_t bytes[32] = {};
  std::memcpy(bytes, p, static_cast<size_t>(count) * (kType == BL_DTYPE_f32 ? 4 : 2));
  return load_vec<kType>(bytes);
}

// 8 dwords in two registers.
struct Ints {
  uint32x4_t low, high;
};
inline Ints load_ints(const uint8_t* p) {
  return {vreinterpretq_u32_u8(vld1q_u8(p)), vreinterpretq_u32_u8(vld1q_u8(p + 16))};
}
inline Ints shift_left(Ints a, int n) {
  return {vshlq_u32(a.low, vdupq_n_s32(n)), vshlq_u32(a.high, vdupq_n_s32(n))};
}
inline Ints shift_right(Ints a, int n) {
  return {vshlq_u32(a.low, vdupq_n_s32(-n)), vshlq_u32(a.high, vdupq_n_s32(-n))};
}
inline uint32x4_t shift_right_signed(uint32x4_t a, int n) {
  return vreinterpretq_u32_s32(vshlq_s32(vreinterpretq_s32_u32(a), vdupq_n_s32(-n)));
}
inline Ints shift_right_signed(Ints a, int n) {
  return {shift_right_signed(a.low, n), shift_right_signed(a.high, n)};
}
inline Ints mask(Ints a, uint32_t bits) {
  return {vandq_u32(a.low, vdupq_n_u32(bits)), vandq_u32(a.high, vdupq_n_u32(bits))};
}
inline Ints either(Ints a, Ints b) { return {vorrq_u32(a.low, b.low), vorrq_u32(a.high, b.high)}; }
inline Vec to_float(Ints a) {
  return {vcvtq_f32_s32(vreinterpretq_s32_u32(a.low)), vcvtq_f32_s32(vreinterpretq_s32_u32(a.high))};
}
inline Vec as_float(Ints a) { return {vreinterpretq_f32_u32(a.low), vreinterpretq_f32_u32(a.high)}; }
inline Vec half_low(Ints a) {
  return {vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(a.low))),
          vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(a.high)))};
}
inline Vec half_high(Ints a) { return half_low(shift_right(a, 16)); }
// NaN in the lanes where a is `bits`.
inline Vec nan_where(Ints a, uint32_t bits, Vec value) {
  const float32x4_t nan = vdupq_n_f32(__builtin_nanf(""));
  return {vbslq_f32(vceqq_u32(a.low, vdupq_n_u32(bits)), nan, value.low),
          vbslq_f32(vceqq_u32(a.high, vdupq_n_u32(bits)), nan, value.high)};
}

}  // namespace

// In this order, hence apart: a formatter sorts what stands together.
#include "units.inl"

#include "rows.inl"

#include "core.inl"

#include "core_f32.inl"

#include "../../isa/end.h"
#endif  // __aarch64__
