// Spans of canonical rows to panels, level avx2: a column of sixteen rows in two halves of four vectors each.
//
// Bytes cannot be shifted each by its own count here, so a step takes words: each byte's two canonical bytes
// (vpshufb) times a power of two (vpmullw), whose high byte is wanted: nine instructions per vector.
#include <cstring>

#include "pack_panel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx2_begin.h"

namespace {

inline __m128i load_16(const uint8_t* bytes) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
}
inline __m256i table(const void* bytes) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(static_cast<const __m128i*>(bytes)));
}

// 16 bytes of rows 0 and 4 from `row` on.
inline __m256i load_rows(const uint8_t* row, int64_t stride) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load_16(row)), load_16(row + 4 * stride), 1);
}

// The vectors of rows i, 4 + i become half runs: dword w of rows 0 to 7.
inline void transpose(__m256i* x) {
  const __m256i a = _mm256_unpacklo_epi32(x[0], x[1]), b = _mm256_unpackhi_epi32(x[0], x[1]);
  const __m256i c = _mm256_unpacklo_epi32(x[2], x[3]), d = _mm256_unpackhi_epi32(x[2], x[3]);
  x[0] = _mm256_unpacklo_epi64(a, c);
  x[1] = _mm256_unpackhi_epi64(a, c);
  x[2] = _mm256_unpacklo_epi64(b, d);
  x[3] = _mm256_unpackhi_epi64(b, d);
}

inline __m256i take_bits(__m256i source, const PackStep& step) {
  __m256i half[2];
  for (int h = 0; h < 2; ++h) {
    const __m256i words = _mm256_shuffle_epi8(source, table(step.words[h]));
    half[h] = _mm256_srli_epi16(_mm256_mullo_epi16(words, table(step.factors[h])), 8);
  }
  return _mm256_and_si256(_mm256_packus_epi16(half[0], half[1]), table(step.mask));
}

inline void load_column(const PackPlan& plan, const PackColumn& column, const uint8_t* rows, int64_t stride,
                        __m256i* x) {
  if (column.direct >= 0) {
    for (int i = 0; i < 4; ++i) x[i] = load_rows(rows + column.direct + i * stride, stride);
    return;
  }
  for (int i = 0; i < 4; ++i) x[i] = _mm256_setzero_si256();
  for (int32_t l = column.first; l < column.last; ++l) {
    const PackLoad& load = plan.loads[l];
    __m256i source[4];
    for (int i = 0; i < 4; ++i) source[i] = load_rows(rows + load.source + i * stride, stride);
    for (int32_t s = load.first; s < load.last; ++s) {
      const PackStep& step = plan.steps[s];
      for (int i = 0; i < 4; ++i) x[i] = _mm256_or_si256(x[i], take_bits(source[i], step));
    }
  }
}

// Byte j of row r of eight at 16j + r.
inline void store_by_bytes(__m256i half, uint8_t* target) {
  const __m256i in_lane = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,  //
                                           0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m256i pairs = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(half, in_lane),
                                                    _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  const __m128i low = _mm256_castsi256_si128(pairs), high = _mm256_extracti128_si256(pairs, 1);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(target), low);
  _mm_storeh_pd(reinterpret_cast<double*>(target + 16), _mm_castsi128_pd(low));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(target + 32), high);
  _mm_storeh_pd(reinterpret_cast<double*>(target + 48), _mm_castsi128_pd(high));
}

inline void pack_column(const PackPlan& plan, const PackColumn& column, const uint8_t* rows, int64_t stride,
                        __m256i present, int half, uint8_t* target) {
  __m256i x[4];
  load_column(plan, column, rows, stride, x);
  transpose(x);
  for (int w = 0; w < 4; ++w) {
    if (column.target[w] < 0) continue;
    const __m256i flip = _mm256_and_si256(present, _mm256_set1_epi8(static_cast<char>(column.flip[w])));
    const __m256i run = _mm256_xor_si256(x[w], flip);
    uint8_t* to = target + column.target[w];
    if (column.by_bytes[w]) {
      store_by_bytes(run, to + 8 * half);
    } else {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32 * half), run);
    }
  }
}

inline void pack_headers(const PackPlan& plan, const uint8_t* rows, int64_t stride, uint8_t* target) {
  for (const PackHeader& header : plan.headers) {
    const uint8_t* from = rows + header.source;
    uint8_t* to = target + header.target;
    if (header.bytes == 2) {
      for (int r = 0; r < 16; ++r) std::memcpy(to + 2 * r, from + r * stride, 2);
    } else {
      for (int r = 0; r < 16; ++r) to[r] = from[r * stride];
    }
  }
}

// Lanes of 32 bits, ones where a row of eight is present.
inline __m256i lanes(uint32_t present) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(present)), bit), bit);
}

}  // namespace

void pack_spans(const PackPlan& plan, const uint8_t* rows, int64_t stride, uint32_t present, int64_t spans,
                uint8_t* target) {
  const __m256i first = lanes(present), second = lanes(present >> 8);
  for (; spans > 0; --spans, rows += plan.span_bytes, target += plan.target_bytes) {
    pack_headers(plan, rows, stride, target);
    for (const PackColumn& column : plan.columns) {
      pack_column(plan, column, rows, stride, first, 0, target);
      pack_column(plan, column, rows + 8 * stride, stride, second, 1, target);
    }
  }
}

#include "../../isa/end.h"
#endif  // __x86_64__
