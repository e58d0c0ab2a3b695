// Activations into tiles at level avx512: scalar_tile.cc with vectors.
#include <immintrin.h>

#include <cmath>

#include "kernel.h"
#include "tile.h"

#include "../../isa/avx512_begin.h"
namespace {

inline __mmask16 mask_of(int64_t left) {
  return static_cast<__mmask16>(left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
}

}  // namespace

void pack_tile_codes(const float* x, int64_t k, int8_t* codes, float* scales, TileSums* sums) {
  const int64_t padded = padded_k(k);
  const __m512 infinity = _mm512_set1_ps(__builtin_inff());
  for (int64_t begin = 0, block = 0; begin < padded; begin += kTileDepth, ++block) {
    const int64_t end = begin + kTileDepth < padded ? begin + kTileDepth : padded;
    __m512 most = _mm512_setzero_ps();
    __mmask16 finite = 0xffff;
    __m512i zeros = _mm512_setzero_si512();
    for (int64_t i = begin; i < end; i += 16) {
      const __m512 v = _mm512_maskz_loadu_ps(mask_of(k - i), x + i);
      const __m512 size = _mm512_abs_ps(v);
      finite = _mm512_mask_cmp_ps_mask(finite, size, infinity, _CMP_LT_OQ);
      most = _mm512_max_ps(most, size);
      zeros = _mm512_mask_sub_epi32(zeros, _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_EQ_OQ), zeros,
                                    _mm512_set1_epi32(-1));
    }
    const float largest = _mm512_reduce_max_ps(most);
    const float inverse = finite == 0xffff && largest >= 1.5e-36f ? 127.0f / largest : 0;
    scales[block] = finite != 0xffff ? NAN : inverse == 0 ? 0 : largest / 127.0f;
    __m512i sum = _mm512_setzero_si512(), squares = sum;
    for (int64_t i = begin; i < end; i += 16) {
      __m512i code = _mm512_setzero_si512();
      if (inverse != 0) {
        const __m512 v = _mm512_maskz_loadu_ps(mask_of(k - i), x + i);
        code = _mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(inverse)));
      }
      sum = _mm512_add_epi32(sum, code);
      squares = _mm512_add_epi32(squares, _mm512_mullo_epi32(code, code));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + tile_at(0, i, 0, kStep)),
                       _mm512_cvtepi32_epi8(code));
    }
    const int32_t nonzero = static_cast<int32_t>(end - begin) - _mm512_reduce_add_epi32(zeros);
    sums[block] = {_mm512_reduce_add_epi32(sum), _mm512_reduce_add_epi32(squares),
                   inverse == 0 ? 0 : nonzero};
  }
}

void pack_tile_halves(const float* x, int64_t k, uint16_t* halves) {
  for (int64_t i = 0; i < padded_k(k); i += 16) {
    const __m512i bits = _mm512_castps_si512(_mm512_maskz_loadu_ps(mask_of(k - i), x + i));
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i half =
        _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
    const __mmask16 nan =
        _mm512_cmp_ps_mask(_mm512_castsi512_ps(bits), _mm512_castsi512_ps(bits), _CMP_UNORD_Q);
    half = _mm512_mask_or_epi32(half, nan, _mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(halves + tile_at(0, i, 0, kStep / 2)),
                        _mm512_cvtepi32_epi16(half));
  }
}
#include "../../isa/end.h"
