// Activations to int8 at level avx512; the same bits as scalar.cc.
#include <cmath>

#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"

void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales) {
  const __m512 magnitude_limit = _mm512_set1_ps(3.4028235e38f);
  for (int64_t begin = 0; begin < padded_k(k); begin += kGroup) {
    const int64_t count = begin >= k ? 0 : (k - begin < kGroup ? k - begin : kGroup);
    const __mmask16 low_mask = static_cast<__mmask16>(count >= 16 ? 0xffff : (1 << count) - 1);
    const __mmask16 high_mask = static_cast<__mmask16>(count >= 32   ? 0xffff
                                                       : count <= 16 ? 0
                                                                     : (1 << (count - 16)) - 1);
    const __m512 low = _mm512_maskz_loadu_ps(low_mask, x + begin);
    const __m512 high = _mm512_maskz_loadu_ps(high_mask, x + begin + 16);
    const __m512 low_abs = _mm512_abs_ps(low);
    const __m512 high_abs = _mm512_abs_ps(high);
    const bool finite = (_mm512_cmp_ps_mask(low_abs, magnitude_limit, _CMP_NLE_UQ) |
                         _mm512_cmp_ps_mask(high_abs, magnitude_limit, _CMP_NLE_UQ)) == 0;
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(low_abs, high_abs));
    const float inverse = !finite || largest < 1.5e-36f ? 0 : 127.0f / largest;
    scales[begin / kGroup] = finite ? (inverse == 0 ? 0 : largest / 127.0f) : NAN;
    const __m512 factor = _mm512_set1_ps(inverse);
    __m512i low_codes = _mm512_cvtps_epi32(_mm512_mul_ps(low, factor));
    __m512i high_codes = _mm512_cvtps_epi32(_mm512_mul_ps(high, factor));
    if (!finite) low_codes = high_codes = _mm512_setzero_si512();
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + begin), _mm512_cvtepi32_epi8(low_codes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + begin + 16), _mm512_cvtepi32_epi8(high_codes));
  }
}

#include "../../isa/end.h"
#endif  // __x86_64__
