// rope at level avx512: 16 values at a time, tails by mask.
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"

namespace {

inline __mmask16 first(int64_t n) { return n >= 16 ? 0xffff : static_cast<__mmask16>((1u << n) - 1); }

}  // namespace

void rope_half(const float* x, const float* cosine, const float* sine, int64_t pairs, float* y) {
  for (int64_t i = 0; i < pairs; i += 16) {
    const __mmask16 mask = first(pairs - i);
    const __m512 a = _mm512_maskz_loadu_ps(mask, x + i);
    const __m512 b = _mm512_maskz_loadu_ps(mask, x + i + pairs);
    const __m512 c = _mm512_maskz_loadu_ps(mask, cosine + i);
    const __m512 s = _mm512_maskz_loadu_ps(mask, sine + i);
    _mm512_mask_storeu_ps(y + i, mask, _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)));
    _mm512_mask_storeu_ps(y + i + pairs, mask, _mm512_add_ps(_mm512_mul_ps(a, s), _mm512_mul_ps(b, c)));
  }
}

// (a, b) * (c, c), and (b, a) * (s, s) subtracted from the even and added to the odd values.
void rope_interleaved(const float* x, const float* cosine, const float* sine, int64_t pairs, float* y) {
  const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  for (int64_t i = 0; i < pairs; i += 8) {
    const __mmask16 mask = first(2 * (pairs - i));
    const __mmask16 table_mask = first(pairs - i) & 0xff;
    const __m512 ab = _mm512_maskz_loadu_ps(mask, x + 2 * i);
    const __m512 ba = _mm512_permute_ps(ab, 0xb1);
    const __m512 c = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(table_mask, cosine + i));
    const __m512 s = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(table_mask, sine + i));
    const __m512 straight = _mm512_mul_ps(ab, c);
    const __m512 crossed = _mm512_mul_ps(ba, s);
    const __m512 result = _mm512_mask_sub_ps(_mm512_add_ps(straight, crossed), 0x5555, straight, crossed);
    _mm512_mask_storeu_ps(y + 2 * i, mask, result);
  }
}

#include "../../isa/end.h"
#endif  // __x86_64__
