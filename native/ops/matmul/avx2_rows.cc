// The kernels of row_kernels.inl at level avx2.
#include <cstdint>

#include "row_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

// clang-format off: the order of these is their meaning
#include "../../isa/avx2_begin.h"
#include "../../isa/simd_avx2.inl"
#include "../../isa/simd_math.inl"

// Eight values within int8 to nearest even.
static inline void encode_vec(Vec x, int8_t* codes) {
  const __m256i whole = _mm256_cvtps_epi32(x.v);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(codes), _mm_packs_epi16(words, words));
}
static inline Vec gather(const float* x, const int32_t* columns) {
  return {_mm256_i32gather_ps(x, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns)), 4)};
}
// The first n lanes; the others are 0.
static inline Vec gather_first(const float* x, const int32_t* columns, int64_t n) {
  const __m256i mask = Vec::first(n);
  return {_mm256_mask_i32gather_ps(_mm256_setzero_ps(), x, _mm256_maskload_epi32(columns, mask),
                                   _mm256_castsi256_ps(mask), 4)};
}
// Bit k of the mask is x[k] >= 0; byte j of the word takes bits j, j + 4, ...
static inline uint32_t sign_word(const float* x) {
  uint32_t mask = 0;
  for (int i = 0; i < 4; ++i) {
    const __m256 at_least = _mm256_cmp_ps(_mm256_loadu_ps(x + 8 * i), _mm256_setzero_ps(), _CMP_GE_OQ);
    mask |= static_cast<uint32_t>(_mm256_movemask_ps(at_least)) << (8 * i);
  }
  return _pext_u32(mask, 0x11111111u) | _pext_u32(mask, 0x22222222u) << 8 | _pext_u32(mask, 0x44444444u) << 16 |
         _pext_u32(mask, 0x88888888u) << 24;
}

#include "row_kernels.inl"
#include "../../isa/end.h"
// clang-format on
#endif  // __x86_64__
