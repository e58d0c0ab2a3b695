// kv_append, kv_gather and nearest_keys at level avx512: tokens.inl, nearest.inl.
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

#include "../../isa/avx512_begin.h"
#include "../../isa/simd_avx512.inl"

namespace {

// Lanes to the nearest whole numbers, to even on a tie, as bytes.
inline void store_codes(Vec x, uint8_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x.v)));
}
inline Vec load_half(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store_half(Vec x, uint16_t* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}

}  // namespace

// In this order, hence apart: a formatter sorts what stands together.
#include "places.inl"

#include "tokens.inl"

#include "nearest.inl"

#include "../../isa/end.h"
#endif  // __x86_64__
