// Activations to int8 at level avx2; the same bits as scalar.cc.
#include <cmath>
#include <cstring>

#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx2_begin.h"

void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales) {
  const __m256 absolute = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  const __m256 limit = _mm256_set1_ps(3.4028235e38f);
  alignas(32) float padded[kGroup];
  for (int64_t begin = 0; begin < padded_k(k); begin += kGroup) {
    const float* group = x + begin;
    if (begin + kGroup > k) {
      std::memset(padded, 0, sizeof(padded));
      if (begin < k) std::memcpy(padded, group, static_cast<size_t>(k - begin) * sizeof(float));
      group = padded;
    }
    __m256 values[4];
    __m256 largest8 = _mm256_setzero_ps();
    __m256 too_large = _mm256_setzero_ps();
    for (int i = 0; i < 4; ++i) {
      values[i] = _mm256_loadu_ps(group + 8 * i);
      const __m256 magnitude = _mm256_and_ps(values[i], absolute);
      too_large = _mm256_or_ps(too_large, _mm256_cmp_ps(magnitude, limit, _CMP_NLE_UQ));
      largest8 = _mm256_max_ps(largest8, magnitude);
    }
    const bool finite = _mm256_movemask_ps(too_large) == 0;
    __m128 largest4 = _mm_max_ps(_mm256_castps256_ps128(largest8), _mm256_extractf128_ps(largest8, 1));
    largest4 = _mm_max_ps(largest4, _mm_movehl_ps(largest4, largest4));
    const float largest = _mm_cvtss_f32(_mm_max_ss(largest4, _mm_movehdup_ps(largest4)));
    const float inverse = !finite || largest < 1.5e-36f ? 0 : 127.0f / largest;
    scales[begin / kGroup] = finite ? (inverse == 0 ? 0 : largest / 127.0f) : NAN;
    const __m256 factor = _mm256_set1_ps(inverse);
    __m256i q[4];
    for (int i = 0; i < 4; ++i) {
      q[i] = finite ? _mm256_cvtps_epi32(_mm256_mul_ps(values[i], factor)) : _mm256_setzero_si256();
    }
    // The packs work within 128-bit halves; the permutation puts the groups of 4 back in order.
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + begin), _mm256_permutevar8x32_epi32(bytes, order));
  }
}

#include "../../isa/end.h"
#endif  // __x86_64__
