// Activations to int8 at level avx512; the same bits as scalar.cc.
#include <cmath>

#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"

namespace {

constexpr int64_t kGroups = 16;  // at a time: their scales are a vector

struct Group {
  __m512 low, high;
};

inline Group load_group(const float* x, int64_t count) {
  if (count >= kGroup) return {_mm512_loadu_ps(x), _mm512_loadu_ps(x + 16)};
  const auto mask = [count](int64_t from) {
    return static_cast<__mmask16>(_bzhi_u32(0xffff, static_cast<uint32_t>(count <= from ? 0 : count - from)));
  };
  return {_mm512_maskz_loadu_ps(mask(0), x), _mm512_maskz_loadu_ps(mask(16), x + 16)};
}

// Bits of the largest |x|: as integers they are in the order of the values, infinity and NaN above all.
inline int32_t largest_bits(const Group& group) {
  const __m512i all = _mm512_max_epi32(_mm512_castps_si512(_mm512_abs_ps(group.low)),
                                       _mm512_castps_si512(_mm512_abs_ps(group.high)));
  return _mm512_reduce_max_epi32(all);
}

}  // namespace

void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales) {
  const int64_t groups = padded_k(k) / kGroup;
  for (int64_t first = 0; first < groups; first += kGroups) {
    const int64_t count = groups - first < kGroups ? groups - first : kGroups;
    alignas(64) int32_t largest[kGroups] = {};
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = (first + i) * kGroup;
      largest[i] = at < k ? largest_bits(load_group(x + at, k - at)) : 0;
    }
    const __m512i bits = _mm512_load_si512(largest);
    const __m512 values = _mm512_castsi512_ps(bits);
    const __mmask16 finite = _mm512_cmplt_epi32_mask(bits, _mm512_set1_epi32(0x7f800000));
    // Below 127 * FLT_MIN the reciprocal overflows; such a group counts as zero.
    const __mmask16 counts = finite & _mm512_cmp_ps_mask(values, _mm512_set1_ps(1.5e-36f), _CMP_NLT_UQ);
    const __m512 most = _mm512_set1_ps(127.0f);
    alignas(64) float inverse[kGroups];
    _mm512_store_ps(inverse, _mm512_maskz_div_ps(counts, most, values));
    const __m512 scale = _mm512_maskz_div_ps(counts, values, most);
    _mm512_mask_storeu_ps(scales + first,
                          static_cast<__mmask16>(_bzhi_u32(0xffff, static_cast<uint32_t>(count))),
                          _mm512_mask_blend_ps(finite, _mm512_set1_ps(NAN), scale));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = (first + i) * kGroup;
      __m128i* out = reinterpret_cast<__m128i*>(codes + at);
      if (inverse[i] == 0) {
        _mm_storeu_si128(out, _mm_setzero_si128());
        _mm_storeu_si128(out + 1, _mm_setzero_si128());
        continue;
      }
      const Group group = load_group(x + at, k - at);
      const __m512 factor = _mm512_set1_ps(inverse[i]);
      const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(group.low, factor));
      const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(group.high, factor));
      _mm_storeu_si128(out, _mm512_cvtepi32_epi8(low));
      _mm_storeu_si128(out + 1, _mm512_cvtepi32_epi8(high));
    }
  }
}

#include "../../isa/end.h"
#endif  // __x86_64__
