// The kernels of route_kernels.inl at level avx512.
#include <cstdint>

#include "route_kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

// clang-format off: the order of these is their meaning
#include "../../isa/avx512_begin.h"
// clang-format on

struct Eight {
  __m512d v;

  static Eight set(double value) { return {_mm512_set1_pd(value)}; }
  static Eight load(const float* p) { return {_mm512_cvtps_pd(_mm256_loadu_ps(p))}; }
  void store(double* p) const { _mm512_storeu_pd(p, v); }
};
inline Eight operator+(Eight a, Eight b) { return {_mm512_add_pd(a.v, b.v)}; }
inline Eight operator-(Eight a, Eight b) { return {_mm512_sub_pd(a.v, b.v)}; }
inline Eight operator*(Eight a, Eight b) { return {_mm512_mul_pd(a.v, b.v)}; }
inline Eight operator/(Eight a, Eight b) { return {_mm512_div_pd(a.v, b.v)}; }
inline Eight max(Eight a, Eight b) { return {_mm512_max_pd(a.v, b.v)}; }
inline Eight minus_abs(Eight a) { return {_mm512_or_pd(a.v, _mm512_set1_pd(-0.0))}; }
// z < 0 ? a : b
inline Eight if_negative(Eight z, Eight a, Eight b) {
  return {_mm512_mask_blend_pd(_mm512_cmp_pd_mask(z.v, _mm512_setzero_pd(), _CMP_LT_OQ), b.v, a.v)};
}
// x < least ? 0 : value
inline Eight zero_below(Eight x, double least, Eight value) {
  return {_mm512_maskz_mov_pd(_mm512_cmp_pd_mask(x.v, _mm512_set1_pd(least), _CMP_GE_OQ), value.v)};
}
// 2^n, n in the low bits of `shifted`
inline Eight power_of_two(Eight shifted) {
  const __m512i biased = _mm512_add_epi64(_mm512_castpd_si512(shifted.v), _mm512_set1_epi64(1023));
  return {_mm512_castsi512_pd(_mm512_slli_epi64(biased, 52))};
}

// clang-format off
#include "route_kernels.inl"
#include "../../isa/end.h"
// clang-format on
#endif  // __x86_64__
