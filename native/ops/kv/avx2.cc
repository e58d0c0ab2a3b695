// kv_append, kv_gather and nearest_keys at level avx2: tokens.inl, nearest.inl.
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

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx2_begin.h"
#include "../../isa/simd_avx2.inl"

namespace {

// Lanes, -128 to 127, to the nearest whole numbers, to even on a tie, as bytes.
inline void store_codes(Vec x, uint8_t* to) {
  const __m256i codes = _mm256_cvtps_epi32(x.v);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(words, words));
}
inline Vec load_half(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline void store_half(Vec x, uint16_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}

}  // namespace

// In this order, hence apart: a formatter sorts what stands together.
#include "places.inl"

#include "tokens.inl"

#include "nearest.inl"

#include "../../isa/end.h"
#endif  // __x86_64__
