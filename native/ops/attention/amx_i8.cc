// attention in integers at level amx: tasks of many rows (several queries, or sequences that share pages),
// whose products are those of the matrix unit, 16 rows x 16 tokens or channels x 64 bytes deep. Everything
// between them, and tasks of few rows, is as at level avx512, with the same bits.
//
// Pages of 8 bits lie as tiles are loaded: 16 dwords of four channels for 16 tokens of keys, 16 dwords of
// four tokens for 16 channels of values. Narrower codes are unpacked once per tile of keys, for all rows.
//
// Per tile of 64 keys and 16 rows of 128 channels: 16 products of 16 cycles; in vector instructions, for each
// row, 20 for scores, 100 for the softmax and weights (four times the 40 of the weights with four groups of
// channels), 48 for sums.
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

#include "../../isa/amx_begin.h"
#include "../../isa/simd_avx512.inl"
#include "../../isa/simd_math.inl"

// In this order, hence apart: a formatter sorts what stands together.
#include "avx512_units.inl"

#include "units.inl"

#include "rows.inl"

#include "core.inl"

#include "tile.inl"

#include "../matmul/amx_tiles.inl"

namespace {

constexpr int64_t kRows = 16;  // of a product
constexpr int64_t kTileBytes = 1024;
// Tasks of fewer rows are avx512's: a product takes as long for one row as for 16.
constexpr int64_t kFewRows = 8;

// Tile loads read what vectors stored, which the compiler is not told.
inline void finish_stores() { __asm__ volatile("" : : : "memory"); }

inline int64_t padded_rows(int64_t rows) { return (rows + kRows - 1) / kRows * kRows; }

inline uint64_t unpacked_key_bytes(int64_t head_dim) {
  return static_cast<uint64_t>((head_dim + 63) / 64 * kUnits * kTileBytes);
}
inline uint64_t unpacked_value_bytes(int64_t value_dim) {
  return static_cast<uint64_t>(padded16(value_dim) / kUnit * kTileBytes);
}
// Keys and values as tiles, and the products of 16 rows and the values.
inline uint64_t own_bytes(const AttentionCall& call) {
  return unpacked_key_bytes(call.head_dim) + 2 * unpacked_value_bytes(call.value_dim);
}

}  // namespace

#include "integers.inl"

namespace {

// A unit of keys as dwords of four signed codes, [query_bytes / 4][16 tokens]: where the page has it so, or
// unpacked to `to`.
template <int kBits>
const uint8_t* unit_of_keys(const KvPage& layout, const uint8_t* keys, int64_t query_bytes, uint8_t* to) {
  constexpr int kParts = 8 / kBits;
  if (kBits == 8 && layout.dim == query_bytes) return keys;
  for (int64_t i = 0; i < layout.rows; ++i) {
    const __m512i dwords = _mm512_loadu_si512(keys + i * 64);
    for (int p = 0; p < kParts; ++p) {
      _mm512_store_si512(to + (i * kParts + p) * 64, codes_of<kBits, true>(dwords, p));
    }
  }
  const int64_t unpacked = layout.rows * kParts * 64;
  std::memset(to + unpacked, 0, static_cast<size_t>(query_bytes * kUnit - unpacked));
  return to;
}

// The values of a tile as dwords of four signed codes, [16][lanes]: where the page has them so, or unpacked
// to `to`.
template <int kBits>
const uint8_t* tile_of_values(const KvPage& layout, const Tile& tile, uint8_t* to) {
  constexpr int kParts = 8 / kBits;
  if (kBits == 8 && layout.page_size % kKeyTile == 0) return tile.values[0];
  const int64_t row_bytes = layout.lanes * 4;
  for (int64_t u = 0; u < kUnits; ++u) {
    for (int64_t i = 0; i < 4 / kParts; ++i) {
      for (int64_t column = 0; column < row_bytes; column += 64) {
        const __m512i dwords = _mm512_loadu_si512(tile.values[u] + i * row_bytes + column);
        for (int p = 0; p < kParts; ++p) {
          uint8_t* at = to + (u * 4 + i * kParts + p) * row_bytes + column;
          _mm512_store_si512(at, codes_of<kBits, true>(dwords, p));
        }
      }
    }
  }
  return to;
}

// Products of 16 rows and kCount units of keys, as integers in the place of their scores.
template <int kCount>
void multiply_keys(const uint8_t* const* units, const int8_t* query, int64_t query_bytes, float* scores) {
  finish_stores();
  zero_sums();
  for (int64_t i = 0; i < query_bytes; i += 64) {
    _tile_loadd(4, query + i, query_bytes);
    _tile_loadd(6, units[0] + i * kUnit, 64);
    _tile_dpbssd(0, 4, 6);
    if constexpr (kCount == 4) {
      _tile_loadd(7, units[1] + i * kUnit, 64);
      _tile_dpbssd(1, 4, 7);
      _tile_loadd(5, units[2] + i * kUnit, 64);
      _tile_dpbssd(2, 4, 5);
      _tile_loadd(6, units[3] + i * kUnit, 64);
      _tile_dpbssd(3, 4, 6);
    }
  }
  _tile_stored(0, scores, kKeyTile * 4);
  if constexpr (kCount == 4) {
    _tile_stored(1, scores + kUnit, kKeyTile * 4);
    _tile_stored(2, scores + 2 * kUnit, kKeyTile * 4);
    _tile_stored(3, scores + 3 * kUnit, kKeyTile * 4);
  }
}

// Scores of 16 rows and units [u, end) from their products.
template <int kBits>
void scale_scores(const Tile& tile, const Integers& ints, int64_t row, int64_t u, int64_t end,
                  float* scores) {
  for (; u < end; ++u) {
    const __m512 token =
        kBits == 8 ? _mm512_loadu_ps(tile.key_page[u] + tile.unit[u] * kUnit * 4) : _mm512_setzero_ps();
    for (int64_t r = 0; r < kRows; ++r) {
      float* at = scores + r * kKeyTile + u * kUnit;
      const __m512 scale = _mm512_set1_ps(ints.query_scale[row + r]);
      const __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(at));
      const __m512 x = kBits == 8 ? _mm512_mul_ps(_mm512_mul_ps(dot, scale), token)
                                  : _mm512_fmadd_ps(dot, scale, _mm512_set1_ps(ints.query_rest[row + r]));
      _mm512_store_ps(at, x);
    }
  }
}

// Scores of all rows and a tile's keys. Where keys have scales of channels, the query is quantized for each
// page.
template <int kBits>
void score_tile(const KvPage& layout, const Tile& tile, Ahead& ahead, const Work& work, Integers& ints) {
  for (int64_t u = 0, end; u < kUnits; u = end) {
    end = u + 1;
    while (end < kUnits && (kBits == 8 || tile.key_page[end] == tile.key_page[u])) ++end;
    if (kBits == 8 ? ints.scaled_for == nullptr : ints.scaled_for != tile.key_page[u]) {
      if constexpr (kBits != 8) load_channels(layout, tile.key_page[u], ints);
      quantize_query<kBits != 8>(layout, ints);
      ints.scaled_for = tile.key_page[u];
    }
    const uint8_t* units[kUnits];
    for (int64_t i = u; i < end; ++i) {
      uint8_t* to = ints.own + i * ints.query_bytes * kUnit;
      units[i] = unit_of_keys<kBits>(layout, tile.keys[i], ints.query_bytes, to);
    }
    for (int64_t row = 0; row < ints.rows; row += kRows) {
      float* scores = work.scores + row * kKeyTile;
      const int8_t* query = ints.codes + row * ints.query_bytes;
      if (end - u == kUnits) {
        multiply_keys<kUnits>(units, query, ints.query_bytes, scores);
      } else {
        for (int64_t i = u; i < end; ++i) {
          multiply_keys<1>(units + i, query, ints.query_bytes, scores + i * kUnit);
        }
      }
      ahead.step();
    }
    // Apart from the products, so that the vector units work on what the matrix unit has done a while ago.
    for (int64_t row = 0; row < ints.rows; row += kRows) {
      scale_scores<kBits>(tile, ints, row, u, end, work.scores + row * kKeyTile);
    }
  }
}

// sums = sums * factor + products for 16 rows and kVecs vectors of channels from `column` on.
template <int kBits, int kVecs>
void add_products(const Work& work, const Integers& ints, int64_t row, int64_t column,
                  const uint8_t* products) {
  constexpr int kOwn = kBits == 8 || kVecs == 1 ? 1 : 2;  // groups of channels among the vectors
  const int64_t group = kBits == 8 ? 0 : column / kKvValueGroup;
  for (int64_t r = 0; r < kRows; ++r) {
    float* sums = work.sums + (row + r) * work.stride + column;
    const float* scales = ints.weight_scale + (row + r) * ints.value_groups + group;
    const __m512 factor = _mm512_set1_ps(ints.factor[row + r]);
    for (int v = 0; v < kVecs; ++v) {
      const __m512i product = _mm512_load_si512(products + v * kTileBytes + r * 64);
      const __m512 added =
          _mm512_mul_ps(_mm512_cvtepi32_ps(product), _mm512_set1_ps(scales[v * kOwn / kVecs]));
      _mm512_storeu_ps(sums + v * kUnit, _mm512_fmadd_ps(_mm512_loadu_ps(sums + v * kUnit), factor, added));
    }
  }
}

// Products of 16 rows' weights and kVecs vectors of channels.
template <int kBits, int kVecs>
void multiply_values(const Integers& ints, const uint8_t* values, int64_t row_bytes, int64_t row,
                     int64_t column, uint8_t* products) {
  const int64_t group = kBits == 8 ? 0 : column / kKvValueGroup;
  const uint8_t* weights = ints.weights + (row * ints.value_groups + group) * kKeyTile;
  const int64_t weight_bytes = ints.value_groups * kKeyTile;
  const uint8_t* at = values + column * 4;
  finish_stores();
  zero_sums();
  _tile_loadd(4, weights, weight_bytes);
  _tile_loadd(6, at, row_bytes);
  _tile_dpbusd(0, 4, 6);
  if constexpr (kVecs == 4) {
    _tile_loadd(7, at + 64, row_bytes);
    _tile_dpbusd(1, 4, 7);
    if constexpr (kBits != 8) _tile_loadd(4, weights + kKeyTile, weight_bytes);
    _tile_loadd(5, at + 128, row_bytes);
    _tile_dpbusd(2, 4, 5);
    _tile_loadd(6, at + 192, row_bytes);
    _tile_dpbusd(3, 4, 6);
  }
  _tile_stored(0, products, 64);
  if constexpr (kVecs == 4) {
    _tile_stored(1, products + kTileBytes, 64);
    _tile_stored(2, products + 2 * kTileBytes, 64);
    _tile_stored(3, products + 3 * kTileBytes, 64);
  }
}

template <int kBits>
void mix_tile(const KvPage& layout, const Tile& tile, Ahead& ahead, const Work& work, Integers& ints) {
  uint8_t* unpacked = ints.own + ints.query_bytes * kKeyTile;
  uint8_t* products = unpacked + layout.lanes * kKeyTile;
  const uint8_t* values = tile_of_values<kBits>(layout, tile, unpacked);
  const int64_t row_bytes = layout.lanes * 4;
  const auto quantize = [&](int64_t row) {
    for (int64_t r = row; r < row + kRows; r += kGroup)
      quantize_weights<kBits != 8>(layout, work, ints, ahead, r);
  };
  quantize(0);
  for (int64_t row = 0; row < ints.rows; row += kRows) {
    int64_t column = 0;
    for (; column + 4 * kUnit <= layout.lanes; column += 4 * kUnit) {
      multiply_values<kBits, 4>(ints, values, row_bytes, row, column, products + column * kRows * 4);
    }
    for (; column < layout.lanes; column += kUnit) {
      multiply_values<kBits, 1>(ints, values, row_bytes, row, column, products + column * kRows * 4);
    }
    if (row + kRows < ints.rows) quantize(row + kRows);  // while the matrix unit works
    for (column = 0; column + 4 * kUnit <= layout.lanes; column += 4 * kUnit) {
      add_products<kBits, 4>(work, ints, row, column, products + column * kRows * 4);
    }
    for (; column < layout.lanes; column += kUnit) {
      add_products<kBits, 1>(work, ints, row, column, products + column * kRows * 4);
    }
  }
}

#include "integers_chunk.inl"

}  // namespace

void attention_i8(const AttentionCall& call, const AttentionTask& task, uint8_t* memory) {
  if (task.rows() <= kFewRows) return avx512::attention_i8(call, task, memory);
  const TileScope tiles;
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
