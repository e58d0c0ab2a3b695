// Tables of partial sums at level avx2, two at a time: 22 vector operations for those of 1 bit, 16 for 2
// bits.
#include "kernel.h"
#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx2_begin.h"

namespace {

// Word i holds the codes (two of 1 bit, or two of 2 bits) of entry i, as bytes.
inline __m256i entry_codes(int first, int bits) {
  alignas(32) uint8_t codes[32];
  for (int i = 0; i < 32; ++i) {
    codes[i] = static_cast<uint8_t>((i / 2) >> (first + i % 2 * bits) & ((1 << bits) - 1));
  }
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(codes));
}

// Word `word` of the half of a vector that is the same in both halves, to all words.
inline __m256i spread(__m256i halves, int word) {
  return _mm256_shuffle_epi8(halves, _mm256_set1_epi16(static_cast<short>(word * 0x0202 + 0x0100)));
}

inline void store(__m256i first, __m256i second, uint8_t* table) {
  const __m256i mixed = _mm256_packus_epi16(first, second);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(table), _mm256_permute4x64_epi64(mixed, 0xD8));
}

// Entries, two tables at a time, handed to what stores them.
template <int kBits>
struct Builder {
  __m256i front, back;
  __m128i gather;  // the bytes of sixteen codes so that those of a table are neighbours

  Builder()
      : front(entry_codes(0, kBits)),
        back(entry_codes(2, 1)),
        gather(kBits == 1 ? _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
                          : _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15)) {}

  // body(table, entries of it, entries of the next), table = 0, 2, .. of 4 * kBits.
  template <typename Body>
  void half(__m128i sixteen, Body&& body) const {
    const __m256i a = _mm256_broadcastsi128_si256(_mm_shuffle_epi8(sixteen, gather));
    const __m256i zero = _mm256_setzero_si256();
    const __m256i magnitudes = _mm256_max_epi8(_mm256_sub_epi8(zero, a), zero);
    __m256i bias = _mm256_maddubs_epi16(magnitudes, _mm256_set1_epi8(kBits == 1 ? 1 : 3));
    if (kBits == 1) bias = _mm256_madd_epi16(bias, _mm256_set1_epi16(1));
    for (int table = 0; table < 4 * kBits; table += 2) {
      __m256i entries[2];
      for (int i = 0; i < 2; ++i) {
        const int word = (table + i) * (kBits == 1 ? 2 : 1);
        entries[i] = _mm256_add_epi16(spread(bias, word), _mm256_maddubs_epi16(front, spread(a, word)));
        if (kBits == 1) {
          entries[i] = _mm256_add_epi16(entries[i], _mm256_maddubs_epi16(back, spread(a, word + 1)));
        }
      }
      body(table, entries[0], entries[1]);
    }
  }

  void exact(const int8_t* codes, uint8_t* tables) const {
    const __m256i low = _mm256_set1_epi16(31);
    for (int half_of = 0; half_of < 2; ++half_of) {
      const __m128i loaded = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + 16 * half_of));
      half(loaded, [&](int table, __m256i first, __m256i second) {
        uint8_t* out = tables + 256 * (table / 4) + 128 * half_of + 16 * (table % 4);
        store(_mm256_and_si256(first, low), _mm256_and_si256(second, low), out);
        store(_mm256_srli_epi16(first, 5), _mm256_srli_epi16(second, 5), out + 64);
      });
    }
  }

  // m: as fast_table_scale gives it. vpmulhrsw is (a * b + 2^14) / 2^15, so that 8 * entry gives 2^12.
  void fast(const int8_t* codes, int32_t m, uint8_t* tables) const {
    const __m256i times = _mm256_set1_epi16(static_cast<short>(m < 0 ? -m : m));
    for (int half_of = 0; half_of < 2; ++half_of) {
      __m128i loaded = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + 16 * half_of));
      if (m < 0) loaded = _mm_sub_epi8(_mm_setzero_si128(), loaded);
      half(loaded, [&](int table, __m256i first, __m256i second) {
        store(_mm256_mulhrs_epi16(_mm256_slli_epi16(first, 3), times),
              _mm256_mulhrs_epi16(_mm256_slli_epi16(second, 3), times),
              tables + 128 * (table / 4) + 64 * half_of + 16 * (table % 4));
      });
    }
  }
};

}  // namespace

#include "build_tables.inl"

void sum_codes(const int8_t* codes, int64_t stride, int32_t* sums, int32_t* negatives) {
  const __m256i zero = _mm256_setzero_si256(), flip = _mm256_set1_epi8(-128);
  for (int64_t i = 0; i < stride / kGroup; ++i) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + kGroup * i));
    const __m256i magnitudes = _mm256_max_epi8(_mm256_sub_epi8(zero, a), zero);
    const __m256i plain = _mm256_sad_epu8(_mm256_xor_si256(a, flip), zero);  // of codes + 128
    const __m256i both = _mm256_or_si256(plain, _mm256_slli_epi64(_mm256_sad_epu8(magnitudes, zero), 32));
    const __m128i half = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    const __m128i sum = _mm_add_epi32(half, _mm_unpackhi_epi64(half, half));
    sums[i] = _mm_cvtsi128_si32(sum) - 128 * static_cast<int32_t>(kGroup);
    negatives[i] = _mm_extract_epi32(sum, 1);
  }
}

void build_tables(const int8_t* codes, int64_t stride, int32_t bits, uint8_t* tables) {
  return bits == 1 ? build<1>(codes, stride, tables) : build<2>(codes, stride, tables);
}

void build_fast_tables(const int8_t* codes, const float* scales, int64_t stride, int32_t bits,
                       uint8_t* tables, float* table_scales) {
  return bits == 1 ? build_fast<1>(codes, scales, stride, tables, table_scales)
                   : build_fast<2>(codes, scales, stride, tables, table_scales);
}

#include "../../isa/end.h"
#endif
