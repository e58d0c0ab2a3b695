// Stored scales of four rows to f32 on ARM; included inside a region. As avx512_scales.inl.

namespace {

inline float32x4_t bf16_scales(uint16x4_t halves) { return vreinterpretq_f32_u32(vshll_n_u16(halves, 16)); }
inline float32x4_t f16_scales(uint16x4_t halves) { return vcvt_f32_f16(vreinterpret_f16_u16(halves)); }

// 2^(byte - 127): 0 is the subnormal 2^-127, 255 NaN.
inline float32x4_t exponent_scales(uint16x4_t byte) {
  const uint32x4_t wide = vmovl_u16(byte);
  uint32x4_t bits = vshlq_n_u32(wide, 23);
  bits = vbslq_u32(vceqzq_u32(wide), vdupq_n_u32(0x00400000), bits);
  bits = vbslq_u32(vceqq_u32(wide, vdupq_n_u32(255)), vdupq_n_u32(0x7fc00000), bits);
  return vreinterpretq_f32_u32(bits);
}

// E4M3 without its sign, by the multiplication that makes its exponent f32's; 127 is NaN.
inline float32x4_t e4m3_scales(uint16x4_t byte) {
  const uint32x4_t magnitude = vandq_u32(vmovl_u16(byte), vdupq_n_u32(127));
  const float32x4_t value = vmulq_f32(vreinterpretq_f32_u32(vshlq_n_u32(magnitude, 20)), vdupq_n_f32(0x1p120f));
  return vbslq_f32(vceqq_u32(magnitude, vdupq_n_u32(127)), vreinterpretq_f32_u32(vdupq_n_u32(0x7fc00000)), value);
}

}  // namespace
