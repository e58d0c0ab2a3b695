// The kernels of row_kernels.inl at level avx512.
#include <cstdint>

#include "row_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

// clang-format off: the order of these is their meaning
#include "../../isa/avx512_begin.h"
#include "../../isa/simd_avx512.inl"
#include "../../isa/simd_math.inl"

// Sixteen values within int8 to nearest even.
static inline void encode_vec(Vec x, int8_t* codes) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x.v)));
}
static inline Vec gather(const float* x, const int32_t* columns) {
  return {_mm512_i32gather_ps(_mm512_loadu_si512(columns), x, 4)};
}
// The first n lanes; the others are 0.
static inline Vec gather_first(const float* x, const int32_t* columns, int64_t n) {
  const __mmask16 mask = Vec::first(n);
  return {_mm512_mask_i32gather_ps(_mm512_setzero_ps(), mask, _mm512_maskz_loadu_epi32(mask, columns), x, 4)};
}
// Bit k of the mask is x[k] >= 0; byte j of the word takes bits j, j + 4, ...
static inline uint32_t sign_word(const float* x) {
  const __m512 zero = _mm512_setzero_ps();
  const uint32_t low = _mm512_cmp_ps_mask(_mm512_loadu_ps(x), zero, _CMP_GE_OQ);
  const uint32_t high = _mm512_cmp_ps_mask(_mm512_loadu_ps(x + 16), zero, _CMP_GE_OQ);
  const uint32_t mask = low | high << 16;
  return _pext_u32(mask, 0x11111111u) | _pext_u32(mask, 0x22222222u) << 8 | _pext_u32(mask, 0x44444444u) << 16 |
         _pext_u32(mask, 0x88888888u) << 24;
}

#include "row_kernels.inl"
#include "../../isa/end.h"
// clang-format on
#endif  // __x86_64__
