// Activations into tiles at level avx512: scalar_tile.cc with vectors.
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>

#include "tile.h"

#include "../../isa/avx512_begin.h"
namespace {

inline __mmask16 mask_of(int64_t left) {
  return static_cast<__mmask16>(left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
}

}  // namespace

void pack_tile_codes(const float* x, int64_t k, int8_t* codes, float* scales, TileSums* sums) {
  const int64_t padded = padded_k(k);
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  // Dword 4 l + i to 4 i + l: undoes the order of two rounds of packs.
  const __m512i sorted = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (int64_t begin = 0, block = 0; begin < padded; begin += kTileDepth, ++block) {
    const int64_t end = begin + kTileDepth < padded ? begin + kTileDepth : padded;
    // Magnitudes compare as integers do, and what is not finite is the largest of all.
    __m512i most[4] = {};
    int32_t nonzero = 0;
    for (int64_t i = begin; i < end; i += 64) {
      for (int j = 0; j < 4; ++j) {
        const __m512 v = _mm512_maskz_loadu_ps(mask_of(k - i - 16 * j), x + i + 16 * j);
        const __m512i size = _mm512_and_si512(_mm512_castps_si512(v), magnitude);
        most[j] = _mm512_max_epi32(most[j], size);
        nonzero += __builtin_popcount(_mm512_test_epi32_mask(size, size));
      }
    }
    const int32_t bits = _mm512_reduce_max_epi32(
        _mm512_max_epi32(_mm512_max_epi32(most[0], most[1]), _mm512_max_epi32(most[2], most[3])));
    const bool finite = bits < 0x7f800000;
    const float largest = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(bits)));
    const float inverse = finite && largest >= 1.5e-36f ? 127.0f / largest : 0;
    scales[block] = !finite ? NAN : inverse == 0 ? 0 : largest / 127.0f;
    __m512i sum = _mm512_setzero_si512(), squares = sum;
    for (int64_t i = begin; i < end; i += 64) {
      __m512i code[4] = {};
      for (int j = 0; j < 4 && inverse != 0; ++j) {
        const __m512 v = _mm512_maskz_loadu_ps(mask_of(k - i - 16 * j), x + i + 16 * j);
        code[j] = _mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(inverse)));
      }
      const __m512i bytes = _mm512_permutexvar_epi32(
          sorted,
          _mm512_packs_epi16(_mm512_packs_epi32(code[0], code[1]), _mm512_packs_epi32(code[2], code[3])));
      const __m512i size = _mm512_abs_epi8(bytes);
      sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), bytes);
      squares = _mm512_dpbusd_epi32(squares, size, size);
      _mm512_storeu_si512(codes + tile_at(0, i, 0, kStep), bytes);
    }
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
#endif  // __x86_64__
