// Sixteen rows of weights in four registers, at every ARM level; included inside a region.

#include "neon_scales.inl"

namespace {

struct Lanes {
  float32x4_t q[4];  // rows 4i to 4i + 3
};
struct Ints {
  int32x4_t q[4];
};

inline Lanes lanes_load(const float* p) {
  return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}
inline void lanes_store(float* p, Lanes x) {
  vst1q_f32(p, x.q[0]);
  vst1q_f32(p + 4, x.q[1]);
  vst1q_f32(p + 8, x.q[2]);
  vst1q_f32(p + 12, x.q[3]);
}
inline Lanes lanes_set(float x) { return {{vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x)}}; }
inline Lanes lanes_mul(Lanes a, Lanes b) {
  return {{vmulq_f32(a.q[0], b.q[0]), vmulq_f32(a.q[1], b.q[1]), vmulq_f32(a.q[2], b.q[2]),
           vmulq_f32(a.q[3], b.q[3])}};
}
inline Lanes lanes_add(Lanes a, Lanes b) {
  return {{vaddq_f32(a.q[0], b.q[0]), vaddq_f32(a.q[1], b.q[1]), vaddq_f32(a.q[2], b.q[2]),
           vaddq_f32(a.q[3], b.q[3])}};
}
inline Lanes lanes_fma(Lanes a, Lanes b, Lanes c) {
  return {{vfmaq_f32(c.q[0], a.q[0], b.q[0]), vfmaq_f32(c.q[1], a.q[1], b.q[1]),
           vfmaq_f32(c.q[2], a.q[2], b.q[2]), vfmaq_f32(c.q[3], a.q[3], b.q[3])}};
}
inline Lanes lanes_negate(Lanes a) {
  return {{vnegq_f32(a.q[0]), vnegq_f32(a.q[1]), vnegq_f32(a.q[2]), vnegq_f32(a.q[3])}};
}
inline Lanes lanes_of_ints(Ints a) {
  return {{vcvtq_f32_s32(a.q[0]), vcvtq_f32_s32(a.q[1]), vcvtq_f32_s32(a.q[2]), vcvtq_f32_s32(a.q[3])}};
}
inline Ints ints_set(int32_t x) { return {{vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x), vdupq_n_s32(x)}}; }

struct Halves {
  uint16x4_t q[4];
};
inline Halves halves_of(uint16x8_t low, uint16x8_t high) {
  return {{vget_low_u16(low), vget_high_u16(low), vget_low_u16(high), vget_high_u16(high)}};
}
inline Halves load_halves(const uint8_t* bytes) {
  return halves_of(vreinterpretq_u16_u8(vld1q_u8(bytes)), vreinterpretq_u16_u8(vld1q_u8(bytes + 16)));
}
inline Halves widen_bytes(const uint8_t* bytes) {
  const uint8x16_t all = vld1q_u8(bytes);
  return halves_of(vmovl_u8(vget_low_u8(all)), vmovl_high_u8(all));
}
template <typename Scales>
inline Lanes lanes_by(Halves x, Scales scales) {
  return {{scales(x.q[0]), scales(x.q[1]), scales(x.q[2]), scales(x.q[3])}};
}
inline Lanes lanes_of_f16(const uint8_t* bytes) {
  return lanes_by(load_halves(bytes), [](uint16x4_t x) { return f16_scales(x); });
}
inline Lanes lanes_of_bf16(const uint8_t* bytes) {
  return lanes_by(load_halves(bytes), [](uint16x4_t x) { return bf16_scales(x); });
}
inline Lanes lanes_of_e8m0(const uint8_t* bytes) {
  return lanes_by(widen_bytes(bytes), [](uint16x4_t x) { return exponent_scales(x); });
}
inline Lanes lanes_of_e4m3(const uint8_t* bytes) {
  return lanes_by(widen_bytes(bytes), [](uint16x4_t x) { return e4m3_scales(x); });
}

// The scales (or offsets) of sixteen rows, in the matrix's scale type.
inline Lanes lanes_of_stored(int32_t type, const uint8_t* bytes) {
  return type == BL_SCALE_bf16   ? lanes_of_bf16(bytes)
         : type == BL_SCALE_e8m0 ? lanes_of_e8m0(bytes)
         : type == BL_SCALE_e4m3 ? lanes_of_e4m3(bytes)
                                 : lanes_of_f16(bytes);
}

}  // namespace
