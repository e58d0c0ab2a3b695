// matmul by tables at level avx2: vpshufb looks up one table for sixteen rows in each half of a vector. The
// halves belong to two panels, so that the tables are the same in both and no sum across halves is needed.
// Entries come as two tables of bytes of which eight lookups can be added as bytes (tables.h): a run of 64
// bytes per panel is widened once, not each of its 8 lookups. Words become floats by sticking the exponent of
// 2^23 on top of them.
#include <cstring>

#include "kernel.h"
#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>

// clang-format off: the order of these is their meaning
#include "../../isa/avx2_begin.h"
#include "avx2_lut.inl"
// clang-format on

namespace {

// Sums of bytes of up to eight lookups.
struct Bytes {
  __m256i low, high;

  void add(const uint8_t* tables, __m256i at) {
    low = _mm256_add_epi8(low, _mm256_shuffle_epi8(table(tables), at));
    high = _mm256_add_epi8(high, _mm256_shuffle_epi8(table(tables + 64), at));
  }
};

// Words of rows 0 to 7 of both panels, and of 8 to 15.
struct Words {
  __m256i of[2];

  Words(const Bytes& sums, __m256i weights)
      : of{_mm256_maddubs_epi16(_mm256_unpacklo_epi8(sums.low, sums.high), weights),
           _mm256_maddubs_epi16(_mm256_unpackhi_epi8(sums.low, sums.high), weights)} {}
  void add(const Words& words, int shift) {
    for (int i = 0; i < 2; ++i) of[i] = _mm256_add_epi16(of[i], _mm256_slli_epi16(words.of[i], shift));
  }
};

// Where codes come from: from memory, a run at a time, for one row of a; or from an array of nibbles, for
// several.
struct Direct {
  const uint8_t *p, *q;

  Words look_up(int run, const uint8_t* tables, __m256i weights) const {
    const __m256i nibble = _mm256_set1_epi8(15);
    Bytes sums{_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int j = 0; j < 4; ++j) {
      const __m256i bytes = load_run(p + 64 * run, q + 64 * run, j);
      sums.add(tables + 16 * j, _mm256_and_si256(bytes, nibble));
      sums.add(tables + 128 + 16 * j, _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble));
    }
    return Words(sums, weights);
  }
};

template <int kRuns>
struct Nibbles {
  __m256i at[kRuns][8];

  Nibbles(const uint8_t* p, const uint8_t* q) {
    const __m256i nibble = _mm256_set1_epi8(15);
    for (int run = 0; run < kRuns; ++run) {
      for (int j = 0; j < 4; ++j) {
        const __m256i bytes = load_run(p + 64 * run, q + 64 * run, j);
        at[run][j] = _mm256_and_si256(bytes, nibble);
        at[run][4 + j] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
      }
    }
  }
  Words look_up(int run, const uint8_t* tables, __m256i weights) const {
    Bytes sums{_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int i = 0; i < 8; ++i) sums.add(tables + i / 4 * 128 + i % 4 * 16, at[run][i]);
    return Words(sums, weights);
  }
};

// The sums of entries of a chunk and row of a: at most 28448 (3 bits), so that words hold them.
template <int kBits, typename Codes>
inline Words look_up(const Codes& codes, const Activations& a, int64_t group, __m256i weights) {
  const int main = kBits == 1 ? 1 : 2;
  const uint8_t* tables = a.tables[main - 1] + group * table_bytes(main);
  Words sum = codes.look_up(0, tables, weights);
  if (kBits >= 2) sum.add(codes.look_up(1, tables + 256, weights), 0);
  if (kBits == 3) sum.add(codes.look_up(2, a.tables[0] + group * table_bytes(1), weights), 2);
  return sum;
}

// What all panels share of a group of 32 activations of a row.
struct Group {
  __m256 start;  // 2^23 - what the sum begins with
  __m256 scale, moment;

  void set(const PanelFormat& f, const Activations& a, int64_t at) {
    start = _mm256_set1_ps(static_cast<float>((1 << 23) - static_cast<int64_t>(lut_start(f, a, at))));
    scale = _mm256_set1_ps(a.scales[at]);
    moment = _mm256_set1_ps(a.moments[at]);
  }
};

template <bool kOffsets>
inline void accumulate(const Words& words, const Group& group, const Four& scales, const Four& offsets,
                       Four* sums) {
  const __m256i exponent = _mm256_set1_epi16(0x4B00);  // of 2^23
  for (int i = 0; i < 4; ++i) {
    const __m256i both = i % 2 == 0 ? _mm256_unpacklo_epi16(words.of[i / 2], exponent)
                                    : _mm256_unpackhi_epi16(words.of[i / 2], exponent);
    const __m256 integers = _mm256_sub_ps(_mm256_castsi256_ps(both), group.start);
    __m256 sum = _mm256_fmadd_ps(integers, _mm256_mul_ps(scales.of[i], group.scale), sums->of[i]);
    if (kOffsets) sum = _mm256_fmadd_ps(offsets.of[i], group.moment, sum);
    sums->of[i] = sum;
  }
}

template <int kBits, bool kOffsets, bool kOne>
void tile_lut(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const int pairs = static_cast<int>(tile.panel_count + 1) / 2;
  const int64_t rows = kOne ? 1 : tile.m_end - tile.m_begin;
  const bool bf16 = f.scale_type == BL_DTYPE_bf16;
  const int64_t groups = a.stride / kGroup, block_chunks = f.elements / kChunk;
  const int64_t chunks = (f.cols + kChunk - 1) / kChunk;
  const __m256i weights = _mm256_set1_epi16(static_cast<short>((kTableHigh << 8 | 1) << f.shift));
  Group shared[kRows];
  Four sums[kPairs][kRows], scales[kPairs], offsets[kPairs];
  for (int pair = 0; pair < pairs; ++pair) {
    for (int64_t m = 0; m < rows; ++m) load_sums(tile, m, pair, &sums[pair][m]);
  }
  int64_t left = 0, at = 0;  // chunks of the block, byte of the panel
  for (int64_t i = 0; i < chunks; ++i, at += 64 * kBits, --left) {
    const int64_t block = i / block_chunks * f.block_bytes;
    const bool begins = left == 0;
    if (begins) {
      at = block + f.chunk_offset;
      left = block_chunks;
    }
    // Past a panel's end follow this thread's next panels.
    const int64_t ahead =
        at + kAhead < f.panel_bytes ? kAhead : kAhead + (tile.panel_count - 1) * tile.panel_stride;
    const int64_t first = tile.m_begin * groups + i;
    for (int64_t m = 0; m < rows; ++m) shared[m].set(f, a, first + m * groups);
    for (int pair = 0; pair < pairs; ++pair) {
      const uint8_t* p = tile.panels + 2 * pair * tile.panel_stride;
      const uint8_t* q = 2 * pair + 1 < tile.panel_count ? p + tile.panel_stride : p;
      if (begins) {
        scales[pair] = load_scales(f, p + block, q + block, bf16);
        if (kOffsets) offsets[pair] = zero_point_offsets(f, p + block, q + block, scales[pair], bf16);
      }
      for (int run = 0; run < kBits; ++run) {
        _mm_prefetch(reinterpret_cast<const char*>(p + at + 64 * run + ahead), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(q + at + 64 * run + ahead), _MM_HINT_T0);
      }
      if (kOne) {
        const Words words = look_up<kBits>(Direct{p + at, q + at}, a, first, weights);
        accumulate<kOffsets>(words, shared[0], scales[pair], offsets[pair], &sums[pair][0]);
        continue;
      }
      const Nibbles<kBits> nibbles(p + at, q + at);
      for (int64_t m = 0; m < rows; ++m) {
        const Words words = look_up<kBits>(nibbles, a, first + m * groups, weights);
        accumulate<kOffsets>(words, shared[m], scales[pair], offsets[pair], &sums[pair][m]);
      }
    }
  }
  for (int pair = 0; pair < pairs; ++pair) {
    for (int64_t m = 0; m < rows; ++m) store_sums(tile, m, pair, sums[pair][m]);
  }
}

template <int kBits>
void tile_lut(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const bool offsets = f.offset_kind != OffsetKind::none;
  if (tile.m_end - tile.m_begin == 1) {
    return offsets ? tile_lut<kBits, true, true>(f, a, tile) : tile_lut<kBits, false, true>(f, a, tile);
  }
  return offsets ? tile_lut<kBits, true, false>(f, a, tile) : tile_lut<kBits, false, false>(f, a, tile);
}

}  // namespace

void matmul_lut_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  if (f.bits == 1) return tile_lut<1>(f, a, tile);
  if (f.bits == 2) return tile_lut<2>(f, a, tile);
  return tile_lut<3>(f, a, tile);
}

#include "../../isa/end.h"
#endif
