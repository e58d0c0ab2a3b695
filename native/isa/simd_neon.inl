// 8 lanes of f32 in two registers for level neon; see simd_avx2.inl, whose results these are. Two, because ARM's
// cores have two to four vector pipes and 32 registers: loops over Vec then have chains enough.
struct Vec {
  static constexpr int64_t kLanes = 8;
  float32x4_t low, high;

  static Vec set(float value) { return {vdupq_n_f32(value), vdupq_n_f32(value)}; }
  static Vec load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
  // The first n lanes, 0 <= n < kLanes, from p[0, n), which is all that is read; the others are `fill`.
  static Vec load_first(const float* p, int64_t n, float fill) {
    float lanes[kLanes] = {fill, fill, fill, fill, fill, fill, fill, fill};
    for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
    return load(lanes);
  }
  void store(float* p) const {
    vst1q_f32(p, low);
    vst1q_f32(p + 4, high);
  }
  void store_first(float* p, int64_t n) const {
    float lanes[kLanes];
    store(lanes);
    for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
  }

  float reduce_add() const {
    const float32x4_t four = vaddq_f32(low, high);
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
  }
  float reduce_max() const { return vmaxvq_f32(vmaxq_f32(low, high)); }

  static float32x4_t power_of_two(int32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
  }
  static float32x4_t ldexp(float32x4_t a, float32x4_t n) {
    const int32x4_t power = vcvtnq_s32_f32(n);
    const int32x4_t half = vshrq_n_s32(power, 1);
    return vmulq_f32(vmulq_f32(a, power_of_two(half)), power_of_two(vsubq_s32(power, half)));
  }
  static float32x4_t if_negative(float32x4_t condition, float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcltzq_s32(vreinterpretq_s32_f32(condition)), a, b);
  }
};

inline Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
inline Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
inline Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
inline Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)}; }
// a * b + c, and c - a * b, rounded once
inline Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)}; }
inline Vec fnma(Vec a, Vec b, Vec c) { return {vfmsq_f32(c.low, a.low, b.low), vfmsq_f32(c.high, a.high, b.high)}; }
// b where either is NaN: not fmax, which gives NaN, nor fmaxnm, which gives the number
inline Vec max(Vec a, Vec b) {
  return {vbslq_f32(vcgtq_f32(a.low, b.low), a.low, b.low), vbslq_f32(vcgtq_f32(a.high, b.high), a.high, b.high)};
}
inline Vec min(Vec a, Vec b) {
  return {vbslq_f32(vcltq_f32(a.low, b.low), a.low, b.low), vbslq_f32(vcltq_f32(a.high, b.high), a.high, b.high)};
}
inline Vec abs(Vec a) { return {vabsq_f32(a.low), vabsq_f32(a.high)}; }
inline Vec round_even(Vec a) { return {vrndnq_f32(a.low), vrndnq_f32(a.high)}; }
// sign bit of condition ? a : b
inline Vec if_negative(Vec condition, Vec a, Vec b) {
  return {Vec::if_negative(condition.low, a.low, b.low), Vec::if_negative(condition.high, a.high, b.high)};
}
// a * 2^n for whole n, |n| <= 250: in two factors, so that each is a normal number and results reach into
// the subnormals.
inline Vec ldexp(Vec a, Vec n) { return {Vec::ldexp(a.low, n.low), Vec::ldexp(a.high, n.high)}; }
