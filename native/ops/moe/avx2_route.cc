// The kernels of route_kernels.inl at level avx2.
#include <cstdint>

#include "route_kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

// clang-format off: the order of these is their meaning
#include "../../isa/avx2_begin.h"
// clang-format on

struct Eight {
  __m256d a, b;

  static Eight set(double value) { return {_mm256_set1_pd(value), _mm256_set1_pd(value)}; }
  static Eight load(const float* p) {
    return {_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4))};
  }
  void store(double* p) const {
    _mm256_storeu_pd(p, a);
    _mm256_storeu_pd(p + 4, b);
  }
};
inline Eight operator+(Eight x, Eight y) { return {_mm256_add_pd(x.a, y.a), _mm256_add_pd(x.b, y.b)}; }
inline Eight operator-(Eight x, Eight y) { return {_mm256_sub_pd(x.a, y.a), _mm256_sub_pd(x.b, y.b)}; }
inline Eight operator*(Eight x, Eight y) { return {_mm256_mul_pd(x.a, y.a), _mm256_mul_pd(x.b, y.b)}; }
inline Eight operator/(Eight x, Eight y) { return {_mm256_div_pd(x.a, y.a), _mm256_div_pd(x.b, y.b)}; }
inline Eight max(Eight x, Eight y) { return {_mm256_max_pd(x.a, y.a), _mm256_max_pd(x.b, y.b)}; }
inline Eight minus_abs(Eight x) {
  const __m256d sign = _mm256_set1_pd(-0.0);
  return {_mm256_or_pd(x.a, sign), _mm256_or_pd(x.b, sign)};
}
// z < 0 ? x : y
inline Eight if_negative(Eight z, Eight x, Eight y) {
  const __m256d zero = _mm256_setzero_pd();
  return {_mm256_blendv_pd(y.a, x.a, _mm256_cmp_pd(z.a, zero, _CMP_LT_OQ)),
          _mm256_blendv_pd(y.b, x.b, _mm256_cmp_pd(z.b, zero, _CMP_LT_OQ))};
}
// x < least ? 0 : value
inline Eight zero_below(Eight x, double least, Eight value) {
  const __m256d bound = _mm256_set1_pd(least);
  return {_mm256_and_pd(_mm256_cmp_pd(x.a, bound, _CMP_GE_OQ), value.a),
          _mm256_and_pd(_mm256_cmp_pd(x.b, bound, _CMP_GE_OQ), value.b)};
}
inline __m256d power_of_two(__m256d shifted) {
  const __m256i biased = _mm256_add_epi64(_mm256_castpd_si256(shifted), _mm256_set1_epi64x(1023));
  return _mm256_castsi256_pd(_mm256_slli_epi64(biased, 52));
}
// 2^n, n in the low bits of `shifted`
inline Eight power_of_two(Eight shifted) { return {power_of_two(shifted.a), power_of_two(shifted.b)}; }

// clang-format off
#include "route_kernels.inl"
#include "../../isa/end.h"
// clang-format on
#endif  // __x86_64__
