// Tables of partial sums at level avx512, four at a time: 22 vector operations for those of 1 bit, 16 for 2
// bits.
#include "kernel.h"
#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"

namespace {

// Word i of a quarter holds the codes (two of 1 bit, or two of 2 bits) of entry i, as bytes.
inline __m512i entry_codes(int first, int bits) {
  alignas(64) uint8_t codes[64];
  for (int i = 0; i < 64; ++i) {
    codes[i] = static_cast<uint8_t>((i / 2 % 16) >> (first + i % 2 * bits) & ((1 << bits) - 1));
  }
  return _mm512_load_si512(codes);
}

// Word 16i + x takes word first + step * i of its source.
inline __m512i two_words(int first, int step) {
  return _mm512_mask_blend_epi16(0xffff0000, _mm512_set1_epi16(static_cast<short>(first)),
                                 _mm512_set1_epi16(static_cast<short>(first + step)));
}

// Entries, four tables at a time, handed to what stores them: words 16i + x of `even` are entry x of table i,
// of `odd` of table 2 + i.
template <int kBits>
struct Builder {
  __m512i order, front = entry_codes(0, kBits), back = entry_codes(2, 1);
  // The bytes of sixteen codes so that those of a table are neighbours.
  __m128i gather = kBits == 1 ? _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
                              : _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);

  Builder() {
    alignas(64) uint8_t bytes[64];
    for (int i = 0; i < 64; ++i) bytes[i] = static_cast<uint8_t>(i % 32 * 2 + i / 32);
    order = _mm512_load_si512(bytes);
  }

  // body(run, even, odd)
  template <typename Body>
  void half(__m128i loaded, Body&& body) const {
    constexpr int kStride = kBits == 1 ? 2 : 1;  // words from table to table
    const __m128i sixteen = _mm_shuffle_epi8(loaded, gather);
    const __m128i magnitudes = _mm_max_epi8(_mm_sub_epi8(_mm_setzero_si128(), sixteen), _mm_setzero_si128());
    __m128i negatives = _mm_maddubs_epi16(magnitudes, _mm_set1_epi8(kBits == 1 ? 1 : 3));
    if (kBits == 1) negatives = _mm_madd_epi16(negatives, _mm_set1_epi16(1));
    const __m512i a = _mm512_castsi128_si512(sixteen), bias = _mm512_castsi128_si512(negatives);
    for (int run = 0; run < kBits; ++run) {
      __m512i entries[2];
      for (int pair = 0; pair < 2; ++pair) {
        const int first = (4 * run + 2 * pair) * kStride;
        const __m512i at = two_words(first, kStride);
        __m512i sum = _mm512_permutexvar_epi16(at, bias);
        sum = _mm512_add_epi16(sum, _mm512_maddubs_epi16(front, _mm512_permutexvar_epi16(at, a)));
        if (kBits == 1) {
          const __m512i next = two_words(first + 1, kStride);
          sum = _mm512_add_epi16(sum, _mm512_maddubs_epi16(back, _mm512_permutexvar_epi16(next, a)));
        }
        entries[pair] = sum;
      }
      body(run, entries[0], entries[1]);
    }
  }

  void exact(const int8_t* codes, uint8_t* tables) const {
    constexpr int kSelect = 0xCA;  // a ? b : c
    const __m512i bytes = _mm512_set1_epi16(0xff);
    for (int half_of = 0; half_of < 2; ++half_of) {
      const __m128i loaded = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + 16 * half_of));
      half(loaded, [&](int run, __m512i even, __m512i odd) {
        const __m512i low = _mm512_ternarylogic_epi32(bytes, even, _mm512_slli_epi16(odd, 8), kSelect);
        const __m512i high =
            _mm512_ternarylogic_epi32(bytes, _mm512_srli_epi16(even, 5), _mm512_slli_epi16(odd, 3), kSelect);
        uint8_t* out = tables + 256 * run + 128 * half_of;
        _mm512_storeu_si512(out, _mm512_permutexvar_epi8(order, _mm512_and_si512(low, _mm512_set1_epi8(31))));
        _mm512_storeu_si512(out + 64, _mm512_permutexvar_epi8(order, high));
      });
    }
  }

  // m: as fast_table_scale gives it. vpmulhrsw is (a * b + 2^14) / 2^15, so that 8 * entry gives 2^12.
  void fast(const int8_t* codes, int32_t m, uint8_t* tables) const {
    const __m512i times = _mm512_set1_epi16(static_cast<short>(m < 0 ? -m : m));
    for (int half_of = 0; half_of < 2; ++half_of) {
      __m128i loaded = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + 16 * half_of));
      if (m < 0) loaded = _mm_sub_epi8(_mm_setzero_si128(), loaded);
      half(loaded, [&](int run, __m512i even, __m512i odd) {
        const __m512i low = _mm512_mulhrs_epi16(_mm512_slli_epi16(even, 3), times);
        const __m512i high = _mm512_mulhrs_epi16(_mm512_slli_epi16(odd, 3), times);
        const __m512i bytes = _mm512_or_si512(low, _mm512_slli_epi16(high, 8));
        _mm512_storeu_si512(tables + 128 * run + 64 * half_of, _mm512_permutexvar_epi8(order, bytes));
      });
    }
  }
};

}  // namespace

#include "build_tables.inl"

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
