// Spans of canonical rows to panels, level avx512: a column of sixteen rows in four vectors.
//
// Per step and vector: vpshufb, vpmultishiftqb, vpternlog. q4_0's and q8_0's codes and floats need none and
// are transposed only: 16 loads (12 of them merging, which takes no shuffle port) and 8 shuffles for 256
// bytes.
#include <cstring>

#include "pack_panel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"

namespace {

inline __m128i load_16(const uint8_t* bytes) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
}
inline __m512i table(const uint8_t* bytes) {
  return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes)));
}

// 16 bytes of rows 0, 4, 8 and 12 from `row` on.
inline __m512i load_rows(const uint8_t* row, int64_t stride) {
  __m512i x = _mm512_castsi128_si512(load_16(row));
  x = _mm512_inserti32x4(x, load_16(row + 4 * stride), 1);
  x = _mm512_inserti32x4(x, load_16(row + 8 * stride), 2);
  return _mm512_inserti32x4(x, load_16(row + 12 * stride), 3);
}

// The vectors of rows i, 4 + i, 8 + i, 12 + i become runs: dword w of rows 0 to 15.
inline void transpose(__m512i* x) {
  const __m512i a = _mm512_unpacklo_epi32(x[0], x[1]), b = _mm512_unpackhi_epi32(x[0], x[1]);
  const __m512i c = _mm512_unpacklo_epi32(x[2], x[3]), d = _mm512_unpackhi_epi32(x[2], x[3]);
  x[0] = _mm512_unpacklo_epi64(a, c);
  x[1] = _mm512_unpackhi_epi64(a, c);
  x[2] = _mm512_unpacklo_epi64(b, d);
  x[3] = _mm512_unpackhi_epi64(b, d);
}

inline void load_column(const PackPlan& plan, const PackColumn& column, const uint8_t* rows, int64_t stride,
                        __m512i* x) {
  if (column.direct >= 0) {
    for (int i = 0; i < 4; ++i) x[i] = load_rows(rows + column.direct + i * stride, stride);
    return;
  }
  for (int i = 0; i < 4; ++i) x[i] = _mm512_setzero_si512();
  for (int32_t l = column.first; l < column.last; ++l) {
    const PackLoad& load = plan.loads[l];
    __m512i source[4];
    for (int i = 0; i < 4; ++i) source[i] = load_rows(rows + load.source + i * stride, stride);
    for (int32_t s = load.first; s < load.last; ++s) {
      const PackStep& step = plan.steps[s];
      const __m512i index = table(step.index), shift = table(step.shift), mask = table(step.mask);
      for (int i = 0; i < 4; ++i) {
        const __m512i bits = _mm512_multishift_epi64_epi8(shift, _mm512_shuffle_epi8(source[i], index));
        x[i] = _mm512_ternarylogic_epi64(x[i], bits, mask, 0xf8);  // x | bits & mask
      }
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

}  // namespace

void pack_spans(const PackPlan& plan, const uint8_t* rows, int64_t stride, uint32_t present, int64_t spans,
                uint8_t* target) {
  alignas(64) uint8_t by_bytes[64];
  for (int i = 0; i < 64; ++i) by_bytes[i] = static_cast<uint8_t>(4 * (i % 16) + i / 16);
  const __m512i order = _mm512_load_si512(by_bytes);
  for (; spans > 0; --spans, rows += plan.span_bytes, target += plan.target_bytes) {
    pack_headers(plan, rows, stride, target);
    for (const PackColumn& column : plan.columns) {
      __m512i x[4];
      load_column(plan, column, rows, stride, x);
      transpose(x);
      for (int w = 0; w < 4; ++w) {
        if (column.target[w] < 0) continue;
        const __m512i flip = _mm512_set1_epi8(static_cast<char>(column.flip[w]));
        __m512i run = _mm512_mask_xor_epi32(x[w], static_cast<__mmask16>(present), x[w], flip);
        if (column.by_bytes[w]) run = _mm512_permutexvar_epi8(order, run);
        _mm512_storeu_si512(target + column.target[w], run);
      }
    }
  }
}

#include "../../isa/end.h"
#endif  // __x86_64__
