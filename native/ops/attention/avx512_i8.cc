// attention in integers at level avx512 (VNNI): both products of four rows and 64 keys with the pages' codes
// as they stand.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"
#include "../../isa/simd_avx512.inl"
#include "../../isa/simd_math.inl"

// In this order, hence apart: a formatter sorts what stands together.
#include "avx512_units.inl"

#include "units.inl"

#include "rows.inl"

#include "core.inl"

#include "tile.inl"

namespace {
inline int64_t padded_rows(int64_t rows) { return in_groups(rows); }
inline uint64_t own_bytes(const AttentionCall&) { return 0; }
}  // namespace

#include "integers.inl"

namespace {

inline __m512i broadcast(const void* dword) {
  int32_t value;
  std::memcpy(&value, dword, 4);
  return _mm512_set1_epi32(value);
}

// Scores of four rows and kTogether units of a tile's keys, from `unit` on.
template <int kBits, int kTogether>
inline void score_units_i8(const KvPage& layout, const Tile& tile, Ahead& ahead, const Integers& ints,
                           int64_t row, int64_t unit, float* scores) {
  constexpr int kParts = 8 / kBits;
  const int8_t* query = ints.codes + row * ints.query_bytes;
  const int64_t query_bytes = ints.query_bytes;
  const int64_t count = layout.rows;
  const uint8_t* keys[kTogether];
  for (int u = 0; u < kTogether; ++u) keys[u] = tile.keys[unit + u];
  __m512i sum[kGroup][kTogether];
  for (int r = 0; r < kGroup; ++r) {
    for (int u = 0; u < kTogether; ++u) sum[r][u] = _mm512_set1_epi32(ints.query_bias[row + r]);
  }
  for (int64_t i = 0; i < count; ++i) {
    __m512i dwords[kTogether];
    for (int u = 0; u < kTogether; ++u) dwords[u] = _mm512_loadu_si512(keys[u] + i * 64);
    if (i % (8 / kTogether) == 0) ahead.step();
    for (int p = 0; p < kParts; ++p) {
      __m512i codes[kTogether];
      for (int u = 0; u < kTogether; ++u) codes[u] = codes_of<kBits, false>(dwords[u], p);
      for (int r = 0; r < kGroup; ++r) {
        const __m512i channels = broadcast(query + r * query_bytes + (i * kParts + p) * 4);
        for (int u = 0; u < kTogether; ++u) sum[r][u] = _mm512_dpbusd_epi32(sum[r][u], codes[u], channels);
      }
    }
  }
  for (int u = 0; u < kTogether; ++u) {
    const __m512 token = kBits == 8
                             ? _mm512_loadu_ps(tile.key_page[unit + u] + tile.unit[unit + u] * kUnit * 4)
                             : _mm512_setzero_ps();
    for (int r = 0; r < kGroup; ++r) {
      const __m512 scale = _mm512_set1_ps(ints.query_scale[row + r]);
      const __m512 dot = _mm512_cvtepi32_ps(sum[r][u]);
      const __m512 x = kBits == 8 ? _mm512_mul_ps(_mm512_mul_ps(dot, scale), token)
                                  : _mm512_fmadd_ps(dot, scale, _mm512_set1_ps(ints.query_rest[row + r]));
      _mm512_store_ps(scores + r * kKeyTile + (unit + u) * kUnit, x);
    }
  }
}

// Scores of four rows and a tile's 64 keys. Codes that are unpacked take registers of their own: sums of all
// four units beside them would be kept on the stack.
template <int kBits>
void score_rows(const KvPage& layout, const Tile& tile, Ahead& ahead, const Integers& ints, int64_t row,
                float* scores) {
  constexpr int kTogether = kBits == 8 ? 4 : 2;
  for (int64_t unit = 0; unit < kUnits; unit += kTogether)
    score_units_i8<kBits, kTogether>(layout, tile, ahead, ints, row, unit, scores);
}

// Scores of all rows and a tile's keys. Where keys have scales of channels, the query is quantized for each
// page; units of other pages are computed again with theirs.
template <int kBits>
void score_tile(const KvPage& layout, const Tile& tile, Ahead& ahead, const Work& work, Integers& ints) {
  if constexpr (kBits == 8) {
    if (ints.scaled_for == nullptr) {
      quantize_query<false>(layout, ints);
      ints.scaled_for = tile.key_page[0];
    }
  }
  for (int64_t u = 0; u < kUnits; ++u) {
    if (u > 0 && (kBits == 8 || tile.key_page[u] == tile.key_page[u - 1])) continue;
    if (kBits != 8 && ints.scaled_for != tile.key_page[u]) {
      load_channels(layout, tile.key_page[u], ints);
      quantize_query<true>(layout, ints);
      ints.scaled_for = tile.key_page[u];
    }
    for (int64_t row = 0; row < ints.rows; row += kGroup) {
      float* scores = work.scores + row * kKeyTile;
      if (u == 0) {
        score_rows<kBits>(layout, tile, ahead, ints, row, scores);
        continue;
      }
      alignas(64) float own[kGroup * kKeyTile];
      score_rows<kBits>(layout, tile, ahead, ints, row, own);
      for (int64_t i = 0; i < kGroup * kKeyTile; i += kUnit) {
        if (i % kKeyTile >= u * kUnit) Vec::load(own + i).store(scores + i);
      }
    }
  }
}

// sums = sums * factor + weights x values for four rows and kVecs vectors of channels from `column` on.
template <int kBits, int kVecs>
inline void add_columns(const KvPage& layout, const Tile& tile, Ahead& ahead, const Work& work,
                        const Integers& ints, int64_t row, int64_t column) {
  constexpr int kParts = 8 / kBits;
  constexpr int kRows = 4 / kParts;                       // of dwords in a unit
  constexpr int kOwn = kBits == 8 || kVecs == 1 ? 1 : 2;  // groups of channels among the vectors
  const int64_t group = kBits == 8 ? 0 : column / kKvValueGroup;
  const uint8_t* weights = ints.weights + (row * ints.value_groups + group) * kKeyTile;
  const int64_t row_bytes = ints.value_groups * kKeyTile;
  __m512i sum[kGroup][kVecs];
  for (int r = 0; r < kGroup; ++r) {
    for (int v = 0; v < kVecs; ++v) sum[r][v] = _mm512_setzero_si512();
  }
  for (int u = 0; u < static_cast<int>(kUnits); ++u) {
    ahead.step();
    for (int i = 0; i < kRows; ++i) {
      __m512i dwords[kVecs];
      for (int v = 0; v < kVecs; ++v) {
        dwords[v] = _mm512_loadu_si512(tile.values[u] + (i * layout.lanes + column + v * kUnit) * 4);
      }
      for (int p = 0; p < kParts; ++p) {
        const uint8_t* at = weights + (u * 4 + i * kParts + p) * 4;
        for (int r = 0; r < kGroup; ++r) {
          __m512i weight[kOwn];
          for (int g = 0; g < kOwn; ++g) weight[g] = broadcast(at + r * row_bytes + g * kKeyTile);
          for (int v = 0; v < kVecs; ++v) {
            sum[r][v] =
                _mm512_dpbusd_epi32(sum[r][v], weight[v * kOwn / kVecs], codes_of<kBits, true>(dwords[v], p));
          }
        }
      }
    }
  }
  for (int r = 0; r < kGroup; ++r) {
    float* sums = work.sums + (row + r) * work.stride + column;
    const float* scales = ints.weight_scale + (row + r) * ints.value_groups + group;
    const __m512 factor = _mm512_set1_ps(ints.factor[row + r]);
    for (int v = 0; v < kVecs; ++v) {
      const __m512 added =
          _mm512_mul_ps(_mm512_cvtepi32_ps(sum[r][v]), _mm512_set1_ps(scales[v * kOwn / kVecs]));
      _mm512_storeu_ps(sums + v * kUnit, _mm512_fmadd_ps(_mm512_loadu_ps(sums + v * kUnit), factor, added));
    }
  }
}

template <int kBits>
void add_values(const KvPage& layout, const Tile& tile, Ahead& ahead, const Work& work, const Integers& ints,
                int64_t row) {
  int64_t column = 0;
  for (; column + 4 * kUnit <= layout.lanes; column += 4 * kUnit) {
    add_columns<kBits, 4>(layout, tile, ahead, work, ints, row, column);
  }
  for (; column < layout.lanes; column += kUnit) {
    add_columns<kBits, 1>(layout, tile, ahead, work, ints, row, column);
  }
}

template <int kBits>
void mix_tile(const KvPage& layout, const Tile& tile, Ahead& ahead, const Work& work, Integers& ints) {
  for (int64_t row = 0; row < ints.rows; row += kGroup) {
    quantize_weights<kBits != 8>(layout, work, ints, ahead, row);
    add_values<kBits>(layout, tile, ahead, work, ints, row);
  }
}

#include "integers_chunk.inl"

}  // namespace

void attention_i8(const AttentionCall& call, const AttentionTask& task, uint8_t* memory) {
  attend_task_integers(call, task, memory);
}

void attention_join_i8(const AttentionCall& call, int64_t query, int64_t head, const float* states,
                       int64_t count, uint8_t* memory) {
  join_states(call, query, head, states, count, memory);
}

uint64_t attention_scratch_bytes_i8(const AttentionCall& call, int64_t rows) {
  return integers_scratch_bytes(call, rows);
}

#include "../../isa/end.h"
#endif  // __x86_64__
