// matmul by tables at level avx512: vpermb looks up four tables of sixteen entries (j = 0 to 3) for sixteen
// rows, vpdpbusd adds the four and weighs them. Per 64 bytes of a 1-bit plane (512 weights): one
// transposition of the bytes to 4 * row + j, three operations for two vectors of indices, then for each row
// of a four lookups (low and high parts) and four vpdpbusd; per group a conversion, a product and an fma. See
// README.md for the count.
#include "kernel.h"
#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>

// clang-format off: the order of these is their meaning
#include "../../isa/avx512_begin.h"
#include "avx512_lut.inl"
// clang-format on

namespace {

constexpr int kPanels = 8;  // streams of weights: fewer do not reach the memory's bandwidth
constexpr int kRows = 4;    // as in kernels.inc
// What a call needs besides the tables, in registers.
struct Constants : IndexConstants {
  __m512i low[2], high[2];  // per plane: what entries count

  explicit Constants(const PanelFormat& f) {
    for (int p = 0; p < 2; ++p) {
      const int shift = f.planes[p].shift + f.shift;  // at most 2: 32 << 2 fits a byte
      low[p] = _mm512_set1_epi8(static_cast<char>(1 << shift));
      high[p] = _mm512_set1_epi8(static_cast<char>(kTableHigh << shift));
    }
  }
};

inline __m512i add_run(__m512i sum, const Indices& at, const uint8_t* tables, __m512i low, __m512i high) {
  for (int half = 0; half < 2; ++half, tables += 128) {
    const __m512i lows = _mm512_permutexvar_epi8(at.half[half], _mm512_loadu_si512(tables));
    const __m512i highs = _mm512_permutexvar_epi8(at.half[half], _mm512_loadu_si512(tables + 64));
    sum = _mm512_dpbusd_epi32(sum, low, lows);
    sum = _mm512_dpbusd_epi32(sum, high, highs);
  }
  return sum;
}

// Where the tables of 32 activations of a row are: [0] of the first plane, [1] of the second (3 bits = 2 +
// 1).
struct Tables {
  const uint8_t* plane[2];
};

template <int kBits>
inline Tables tables_of(const Activations& a, int64_t at) {
  if (kBits == 3) return {{a.tables[1] + at * table_bytes(2), a.tables[0] + at * table_bytes(1)}};
  return {{a.tables[kBits - 1] + at * table_bytes(kBits), nullptr}};
}

template <int kBits>
inline void chunk_indices(const uint8_t* chunk, const Constants& k, Indices (&at)[kBits]) {
  for (int run = 0; run < kBits; ++run) at[run] = indices(chunk + 64 * run, k);
}

template <int kBits>
inline __m512i look_up(__m512i sum, const Indices (&at)[kBits], const Tables& tables, const Constants& k) {
  for (int run = 0; run < (kBits == 3 ? 2 : kBits); ++run) {
    sum = add_run(sum, at[run], tables.plane[0] + 256 * run, k.low[0], k.high[0]);
  }
  if (kBits == 3) sum = add_run(sum, at[kBits - 1], tables.plane[1], k.low[1], k.high[1]);
  return sum;
}

// What all panels share of a group of 32 activations of a row.
struct Group {
  Tables tables;
  __m512i start;
  __m512 scale, moment;
};

template <int kBits, bool kOffsets>
inline void set_group(const PanelFormat& f, const Activations& a, int64_t at, Group* group) {
  group->tables = tables_of<kBits>(a, at);
  group->start = _mm512_set1_epi32(lut_start(f, a, at));
  group->scale = _mm512_set1_ps(a.scales[at]);
  if (kOffsets) group->moment = _mm512_set1_ps(a.moments[at]);
}

// A chunk of a panel times kM rows of a.
template <int kBits, bool kOffsets, int kM>
inline void add_chunk(const uint8_t* chunk, const Constants& k, const Group* groups, __m512 scale,
                      __m512 offset, __m512* sums) {
  Indices at[kBits];
  chunk_indices<kBits>(chunk, k, at);
#pragma GCC unroll 4
  for (int m = 0; m < kM; ++m) {
    const __m512 integers = _mm512_cvtepi32_ps(look_up<kBits>(groups[m].start, at, groups[m].tables, k));
    sums[m] = _mm512_fmadd_ps(integers, _mm512_mul_ps(scale, groups[m].scale), sums[m]);
    if (kOffsets) sums[m] = _mm512_fmadd_ps(offset, groups[m].moment, sums[m]);
  }
}

// kFixed: kPanels panels, one after the other in the code, so that the sums of one row stay in registers;
// else any number of panels, and sums in the L1.
template <int kBits, bool kOffsets, int kM, bool kFixed>
void tile_lut(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const int panels = kFixed ? kPanels : static_cast<int>(tile.panel_count);
  const Constants k(f);
  const bool bf16 = f.scale_type == BL_DTYPE_bf16;
  const int64_t groups = a.stride / kGroup, block_chunks = f.elements / kChunk;
  const int64_t chunks = (f.cols + kChunk - 1) / kChunk;
  Group shared[kM];
  __m512 sums[kPanels][kM], scales[kPanels], offsets[kPanels];
  for (int p = 0; p < panels; ++p) {
    for (int m = 0; m < kM; ++m) {
      const float* values = tile.values + m * tile.stride + kPanelRows * p;
      sums[p][m] = tile.accumulate ? _mm512_loadu_ps(values) : _mm512_setzero_ps();
    }
  }
  const uint8_t* block = tile.panels;
  int64_t left = 0, in_panel = 0;  // chunks of the block, byte of the panel
  for (int64_t i = 0; i < chunks; ++i, in_panel += 64 * kBits, --left) {
    if (left == 0) {
      block = tile.panels + i / block_chunks * f.block_bytes;
      in_panel = block - tile.panels + f.chunk_offset;
      left = block_chunks;
#pragma GCC unroll 8
      for (int p = 0; p < panels; ++p) {
        const uint8_t* header = block + p * tile.panel_stride;
        scales[p] = load_scales(f, header, bf16);
        if (kOffsets) offsets[p] = zero_point_offset(f, header, scales[p], bf16);
      }
    }
    for (int m = 0; m < kM; ++m) {
      set_group<kBits, kOffsets>(f, a, (tile.m_begin + m) * groups + i, &shared[m]);
    }
    const uint8_t* chunk = tile.panels + in_panel;
    const int64_t ahead = ahead_of(f, tile, in_panel);
    const auto panel = [&](int p) {
      for (int run = 0; run < kBits; ++run) {
        _mm_prefetch(reinterpret_cast<const char*>(chunk + 64 * run + ahead), _MM_HINT_T0);
      }
      add_chunk<kBits, kOffsets, kM>(chunk, k, shared, scales[p], offsets[p], sums[p]);
      chunk += tile.panel_stride;
    };
    if (kFixed) {
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) panel(p);
    } else {
      for (int p = 0; p < panels; ++p) panel(p);
    }
  }
  for (int p = 0; p < panels; ++p) {
    for (int m = 0; m < kM; ++m) {
      _mm512_storeu_ps(tile.values + m * tile.stride + kPanelRows * p, sums[p][m]);
    }
  }
}

template <int kBits, bool kOffsets>
void tile_lut(const PanelFormat& f, const Activations& a, const Tile& tile) {
  switch (tile.m_end - tile.m_begin) {
    case 1:
      return tile.panel_count == kPanels ? tile_lut<kBits, kOffsets, 1, true>(f, a, tile)
                                         : tile_lut<kBits, kOffsets, 1, false>(f, a, tile);
    case 2:
      return tile_lut<kBits, kOffsets, 2, false>(f, a, tile);
    case 3:
      return tile_lut<kBits, kOffsets, 3, false>(f, a, tile);
    default:
      return tile_lut<kBits, kOffsets, 4, false>(f, a, tile);
  }
}

template <int kBits>
void tile_lut(const PanelFormat& f, const Activations& a, const Tile& tile) {
  if (f.offset_kind == OffsetKind::none) return tile_lut<kBits, false>(f, a, tile);
  return tile_lut<kBits, true>(f, a, tile);
}

}  // namespace

void matmul_lut_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  if (f.bits == 1) return tile_lut<1>(f, a, tile);
  if (f.bits == 2) return tile_lut<2>(f, a, tile);
  return tile_lut<3>(f, a, tile);
}

#include "../../isa/end.h"
#endif
