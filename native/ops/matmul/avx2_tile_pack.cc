// Activations into tiles at level avx2: scalar_tile.cc with vectors.
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "../../base/float16.h"
#include "tile.h"

#include "../../isa/avx2_begin.h"
namespace {

// Eight values from x + i, zeros from x + k on.
inline __m256 load_eight(const float* x, int64_t i, int64_t k) {
  if (i + 8 <= k) return _mm256_loadu_ps(x + i);
  float values[8] = {};
  if (i < k) std::memcpy(values, x + i, static_cast<size_t>(k - i) * sizeof(float));
  return _mm256_loadu_ps(values);
}

inline int32_t add_lanes(__m256i v) {
  int32_t lanes[8], sum = 0;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), v);
  for (const int32_t lane : lanes) sum += lane;
  return sum;
}

}  // namespace

void pack_tile_codes(const float* x, int64_t k, int8_t* codes, float* scales, TileSums* sums) {
  const int64_t padded = padded_k(k);
  const __m256 infinity = _mm256_set1_ps(__builtin_inff()), sign = _mm256_set1_ps(-0.0f),
               zero = _mm256_setzero_ps();
  // Bytes 0, 4, 8, 12 of either half.
  const __m256i low_bytes = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0,
                                             4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  for (int64_t begin = 0, block = 0; begin < padded; begin += kTileDepth, ++block) {
    const int64_t end = begin + kTileDepth < padded ? begin + kTileDepth : padded;
    __m256 most = zero, finite = _mm256_cmp_ps(zero, zero, _CMP_EQ_OQ);
    __m256i minus_nonzero = _mm256_setzero_si256();
    for (int64_t i = begin; i < end; i += 8) {
      const __m256 v = load_eight(x, i, k), size = _mm256_andnot_ps(sign, v);
      finite = _mm256_and_ps(finite, _mm256_cmp_ps(size, infinity, _CMP_LT_OQ));
      most = _mm256_max_ps(most, size);
      minus_nonzero =
          _mm256_add_epi32(minus_nonzero, _mm256_castps_si256(_mm256_cmp_ps(v, zero, _CMP_NEQ_OQ)));
    }
    float lanes[8], largest = 0;
    _mm256_storeu_ps(lanes, most);
    for (const float lane : lanes) largest = lane > largest ? lane : largest;
    const bool all_finite = _mm256_movemask_ps(finite) == 0xff;
    const float inverse = all_finite && largest >= 1.5e-36f ? 127.0f / largest : 0;
    scales[block] = !all_finite ? NAN : inverse == 0 ? 0 : largest / 127.0f;
    __m256i sum = _mm256_setzero_si256(), squares = sum;
    for (int64_t i = begin; i < end; i += 8) {
      __m256i code = _mm256_setzero_si256();
      if (inverse != 0) {
        code = _mm256_cvtps_epi32(_mm256_mul_ps(load_eight(x, i, k), _mm256_set1_ps(inverse)));
      }
      sum = _mm256_add_epi32(sum, code);
      squares = _mm256_add_epi32(squares, _mm256_mullo_epi32(code, code));
      const __m256i bytes = _mm256_shuffle_epi8(code, low_bytes);
      int8_t* out = codes + tile_at(0, i, 0, kStep);
      const int32_t first = _mm256_extract_epi32(bytes, 0), second = _mm256_extract_epi32(bytes, 4);
      std::memcpy(out, &first, 4);
      std::memcpy(out + 4, &second, 4);
    }
    sums[block] = {add_lanes(sum), add_lanes(squares), inverse == 0 ? 0 : -add_lanes(minus_nonzero)};
  }
}

void pack_tile_halves(const float* x, int64_t k, uint16_t* halves) {
  const __m256i one = _mm256_set1_epi32(1), bias = _mm256_set1_epi32(0x7fff);
  for (int64_t i = 0; i < padded_k(k); i += 8) {
    const __m256 v = load_eight(x, i, k);
    const __m256i bits = _mm256_castps_si256(v), high = _mm256_srli_epi32(bits, 16);
    const __m256i half =
        _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, bias), _mm256_and_si256(high, one)), 16);
    const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i words = _mm256_blendv_epi8(half, quiet, nan);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(halves + tile_at(0, i, 0, kStep / 2)),
                     _mm256_castsi256_si128(packed));
  }
}
#include "../../isa/end.h"
#endif  // __x86_64__
