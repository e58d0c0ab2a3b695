// Compute i1 at level avx2: signs times signs by XOR and counts of bits by table; see avx512_dequant_i1.cc. A
// chunk is two vectors, bytes 16 (j % 2) + r of weights j, j + 4, ... for j = 0, 1 and for j = 2, 3.
#include <cstdint>

#include "kernel.h"
#include "signs.h"

#if defined(__x86_64__)
#include <immintrin.h>

// clang-format off: the order of these is their meaning
#include "../../isa/avx2_begin.h"
// clang-format on

// Mismatches of seven chunks, 32 of a row each, stay below 256.
constexpr int64_t kBytesChunks = 7;

static inline __m256i count_bits(__m256i bytes) {
  const __m256i table =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m256i low = _mm256_set1_epi8(15);
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low);
  return _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(bytes, low)),
                         _mm256_shuffle_epi8(table, high));
}

static inline __m256 load_scales(const PanelFormat& f, const uint8_t* scales) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales));
  const __m256 values = f.scale_type == BL_DTYPE_bf16
                            ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))
                            : _mm256_cvtph_ps(halves);
  return _mm256_mul_ps(values, _mm256_set1_ps(f.scale_factor));
}

// Rows 0 to 7 and 8 to 15 of a panel.
static inline void mismatches(const SignGroup& group, __m256i totals[2]) {
  const __m256i first = _mm256_set_epi32(0x01010101, 0x01010101, 0x01010101, 0x01010101, 0, 0, 0, 0);
  const __m256i second = _mm256_add_epi8(first, _mm256_set1_epi8(2));
  totals[0] = totals[1] = _mm256_setzero_si256();
  for (int64_t begin = 0; begin < group.chunks; begin += kBytesChunks) {
    const int64_t end = begin + kBytesChunks < group.chunks ? begin + kBytesChunks : group.chunks;
    __m256i bytes = _mm256_setzero_si256();
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const __m256i* codes = reinterpret_cast<const __m256i*>(group.codes + 64 * chunk);
      const uint32_t valid = chunk + 1 == group.chunks ? group.last : ~0u;
      const __m256i word = _mm256_set1_epi32(static_cast<int>(group.signs[chunk]));
      const __m256i mask = _mm256_set1_epi32(static_cast<int>(valid));
      const __m256i low =
          _mm256_and_si256(_mm256_xor_si256(_mm256_loadu_si256(codes), _mm256_shuffle_epi8(word, first)),
                           _mm256_shuffle_epi8(mask, first));
      const __m256i high =
          _mm256_and_si256(_mm256_xor_si256(_mm256_loadu_si256(codes + 1), _mm256_shuffle_epi8(word, second)),
                           _mm256_shuffle_epi8(mask, second));
      bytes = _mm256_add_epi8(bytes, _mm256_add_epi8(count_bits(low), count_bits(high)));
    }
    const __m128i rows = _mm_add_epi8(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    totals[0] = _mm256_add_epi32(totals[0], _mm256_cvtepu8_epi32(rows));
    totals[1] = _mm256_add_epi32(totals[1], _mm256_cvtepu8_epi32(_mm_srli_si128(rows, 8)));
  }
}

static void row_i1(const PanelFormat& f, const Activations& a, const uint8_t* panel, int64_t m,
                   bool accumulate, float* out) {
  const uint32_t* signs = a.signs + m * a.stride / kChunk;
  __m256 sums[2];
  for (int half = 0; half < 2; ++half) {
    sums[half] = accumulate ? _mm256_loadu_ps(out + 8 * half) : _mm256_setzero_ps();
  }
  for (int64_t k = 0; k < f.cols; k += f.group) {
    const SignGroup group = sign_group(f, panel, signs, k);
    __m256i totals[2];
    mismatches(group, totals);
    const __m256i count = _mm256_set1_epi32(static_cast<int>(group.count));
    for (int half = 0; half < 2; ++half) {
      const __m256i sum = _mm256_sub_epi32(count, _mm256_slli_epi32(totals[half], 1));
      const __m256 both =
          _mm256_mul_ps(load_scales(f, group.scales + 16 * half), _mm256_set1_ps(a.scales[m]));
      sums[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), both, sums[half]);
    }
  }
  for (int half = 0; half < 2; ++half) _mm256_storeu_ps(out + 8 * half, sums[half]);
}

void matmul_dequant_i1(const PanelFormat& f, const Activations& a, const Tile& tile) {
  for (int64_t p = 0; p < tile.panel_count; ++p) {
    for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
      row_i1(f, a, tile.panels + p * tile.panel_stride, m, tile.accumulate,
             tile.values + (m - tile.m_begin) * tile.stride + p * kPanelRows);
    }
  }
}

// clang-format off
#include "../../isa/end.h"
// clang-format on
#endif  // __x86_64__
