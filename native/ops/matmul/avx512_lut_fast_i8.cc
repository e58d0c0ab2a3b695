// matmul by tables of bytes at level avx512: as avx512_lut_i8.cc with one lookup for two, and sums that are
// scaled once per step of up to 128 weights. Per 64 bytes of a 1-bit plane (512 weights), 8 vector
// operations: a transposition, three for two vectors of indices, and for each row of a two lookups and two
// vpdpbusd; per step five more.
#include "kernel.h"
#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>

// clang-format off: the order of these is their meaning
#include "../../isa/avx512_begin.h"
#include "avx512_lut.inl"
// clang-format on

namespace {

constexpr int kPanels = 8, kRows = 4;  // as in kernels.inc

// What all panels share of a step of a row of a.
struct Step {
  const uint8_t* tables[2];  // per plane
  __m512 scale[2];           // per plane: what an entry counts
  __m512 start, moment;
};

inline void set_step(const PanelFormat& f, const Activations& a, int64_t m, int64_t k, int64_t step,
                     Step* s) {
  for (int p = 0; p < f.plane_count; ++p) {
    const Plane& plane = f.planes[p];
    const int kind = plane.bits - 1;
    s->tables[p] = a.fast_tables[kind] + (m * a.stride + k) / kGroup * fast_table_bytes(plane.bits);
    const float scale = a.table_scales[kind][m * pieces(a.stride, kTableGroup) + k / kTableGroup];
    s->scale[p] = _mm512_set1_ps(scale * static_cast<float>(1 << (plane.shift + f.shift)));
  }
  const int64_t at = m * pieces(a.stride, step) + k / step;
  s->start = _mm512_set1_ps(a.table_starts[at]);
  s->moment = _mm512_set1_ps(a.table_moments[at]);
}

// What a plane of a panel's chunks looks up, for kM rows of a; chunks lie `stride` apart. Fetches what lies
// `ahead` of each line: spread over the work, as few lines can be under way at a time. A sum for each run and
// nibble: one for all would be a chain of up to 16 vpdpbusd of 5 cycles, longer than the step.
template <int kBits, int kM>
inline void look_up(const uint8_t* plane, int64_t stride, int64_t chunks, int64_t ahead, const Step* steps,
                    int p, const IndexConstants& k, __m512i* totals) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i sums[kM][kBits][2];
#pragma GCC unroll 16
  for (int i = 0; i < kM * kBits * 2; ++i) sums[i / kBits / 2][i / 2 % kBits][i % 2] = _mm512_setzero_si512();
  for (int64_t c = 0; c < chunks; ++c, plane += stride) {
#pragma GCC unroll 2
    for (int run = 0; run < kBits; ++run) {
      _mm_prefetch(reinterpret_cast<const char*>(plane + 64 * run + ahead), _MM_HINT_T0);
      const Indices at = indices(plane + 64 * run, k);
#pragma GCC unroll 4
      for (int m = 0; m < kM; ++m) {
        const uint8_t* tables = steps[m].tables[p] + c * fast_table_bytes(kBits) + 128 * run;
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          const __m512i found =
              _mm512_permutexvar_epi8(at.half[half], _mm512_loadu_si512(tables + 64 * half));
          sums[m][run][half] = _mm512_dpbusd_epi32(sums[m][run][half], found, ones);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < kM; ++m) {
    totals[m] = _mm512_add_epi32(sums[m][0][0], sums[m][0][1]);
    if (kBits == 2)
      totals[m] = _mm512_add_epi32(totals[m], _mm512_add_epi32(sums[m][kBits - 1][0], sums[m][kBits - 1][1]));
  }
}

// The same for one row of a and kPanels panels, chunk by chunk: a thread that reads all of a step from one
// panel before the next reaches 14 GB/s from memory where this reaches 16.
template <int kBits>
inline void look_up_eight(const uint8_t* plane, int64_t panel_stride, int64_t stride, int64_t chunks,
                          int64_t ahead, const uint8_t* tables, const IndexConstants& k, __m512i* totals) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i sums[kPanels];
#pragma GCC unroll 8
  for (int i = 0; i < kPanels; ++i) sums[i] = _mm512_setzero_si512();
  for (int64_t c = 0; c < chunks; ++c, plane += stride, tables += fast_table_bytes(kBits)) {
    const uint8_t* panel = plane;
#pragma GCC unroll 8
    for (int i = 0; i < kPanels; ++i, panel += panel_stride) {
#pragma GCC unroll 2
      for (int run = 0; run < kBits; ++run) {
        _mm_prefetch(reinterpret_cast<const char*>(panel + 64 * run + ahead), _MM_HINT_T0);
        const Indices at = indices(panel + 64 * run, k);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          const __m512i found =
              _mm512_permutexvar_epi8(at.half[half], _mm512_loadu_si512(tables + 128 * run + 64 * half));
          sums[i] = _mm512_dpbusd_epi32(sums[i], found, ones);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kPanels; ++i) totals[i] = sums[i];
}

// Adds what was looked up for a panel and row of a.
template <int kBits, bool kOffsets>
inline __m512 add_looked_up(__m512i main, __m512i rest, const Step& step, __m512 scale, __m512 offset,
                            __m512 sum) {
  __m512 looked = _mm512_fmadd_ps(_mm512_cvtepi32_ps(main), step.scale[0], step.start);
  if (kBits == 3) looked = _mm512_fmadd_ps(_mm512_cvtepi32_ps(rest), step.scale[1], looked);
  sum = _mm512_fmadd_ps(scale, looked, sum);
  return kOffsets ? _mm512_fmadd_ps(offset, step.moment, sum) : sum;
}

// Where a step stands in every panel of a tile.
struct Place {
  const uint8_t *header, *chunk;  // of the first panel
  int64_t chunks, ahead;
  bool bf16;
};

// A step of kPanels panels times one row of a.
template <int kBits, bool kOffsets>
inline void add_step_of_eight(const PanelFormat& f, const Tile& tile, const Place& at, const Step& step,
                              const IndexConstants& k, __m512* sums) {
  constexpr int kMain = kBits == 1 ? 1 : 2;
  __m512i main[kPanels], rest[kPanels] = {};
  look_up_eight<kMain>(at.chunk, tile.panel_stride, 64 * kBits, at.chunks, at.ahead, step.tables[0], k, main);
  if (kBits == 3) {
    look_up_eight<1>(at.chunk + 128, tile.panel_stride, 64 * kBits, at.chunks, at.ahead, step.tables[1], k,
                     rest);
  }
#pragma GCC unroll 8
  for (int p = 0; p < kPanels; ++p) {
    const uint8_t* header = at.header + p * tile.panel_stride;
    _mm_prefetch(reinterpret_cast<const char*>(header + at.ahead), _MM_HINT_T0);
    const __m512 scale = load_scales(f, header, at.bf16);
    const __m512 offset = kOffsets ? zero_point_offset(f, header, scale, at.bf16) : scale;
    sums[p] = add_looked_up<kBits, kOffsets>(main[p], rest[p], step, scale, offset, sums[p]);
  }
}

// A step of one panel times kM rows of a.
template <int kBits, bool kOffsets, int kM>
inline void add_step(const PanelFormat& f, int64_t panel, const Place& at, const Step* steps,
                     const IndexConstants& k, __m512* sums) {
  constexpr int kMain = kBits == 1 ? 1 : 2;
  const uint8_t *header = at.header + panel, *chunk = at.chunk + panel;
  _mm_prefetch(reinterpret_cast<const char*>(header + at.ahead), _MM_HINT_T0);
  const __m512 scale = load_scales(f, header, at.bf16);
  const __m512 offset = kOffsets ? zero_point_offset(f, header, scale, at.bf16) : scale;
  __m512i main[kM], rest[kM] = {};
  look_up<kMain, kM>(chunk, 64 * kBits, at.chunks, at.ahead, steps, 0, k, main);
  if (kBits == 3) look_up<1, kM>(chunk + 128, 64 * kBits, at.chunks, at.ahead, steps, 1, k, rest);
#pragma GCC unroll 4
  for (int m = 0; m < kM; ++m) {
    sums[m] = add_looked_up<kBits, kOffsets>(main[m], rest[m], steps[m], scale, offset, sums[m]);
  }
}

// kFixed: kPanels panels and one row of a.
template <int kBits, bool kOffsets, int kM, bool kFixed>
void tile_lut(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const int panels = kFixed ? kPanels : static_cast<int>(tile.panel_count);
  const IndexConstants k;
  const int64_t step = table_step_of(f), all_chunks = pieces(f.cols, kChunk), step_chunks = step / kChunk;
  Step steps[kM];
  __m512 sums[kPanels][kM];
  for (int p = 0; p < panels; ++p) {
    for (int m = 0; m < kM; ++m) {
      const float* values = tile.values + m * tile.stride + kPanelRows * p;
      sums[p][m] = tile.accumulate ? _mm512_loadu_ps(values) : _mm512_setzero_ps();
    }
  }
  for (int64_t i = 0; i < all_chunks; i += step_chunks) {
    const int64_t column = i * kChunk, block = column / f.elements * f.block_bytes;
    const int64_t first = block + f.chunk_offset + column % f.elements / kChunk * f.chunk_bytes;
    for (int m = 0; m < kM; ++m) set_step(f, a, tile.m_begin + m, column, step, &steps[m]);
    const Place at{tile.panels + block, tile.panels + first,
                   all_chunks - i < step_chunks ? all_chunks - i : step_chunks, ahead_of(f, tile, first),
                   f.scale_type == BL_DTYPE_bf16};
    if (kFixed) {
      add_step_of_eight<kBits, kOffsets>(f, tile, at, steps[0], k, &sums[0][0]);
      continue;
    }
    for (int p = 0; p < panels; ++p) {
      add_step<kBits, kOffsets, kM>(f, p * tile.panel_stride, at, steps, k, sums[p]);
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
  static_assert(kRows == 4);
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

void matmul_lut_fast_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  if (f.bits == 1) return tile_lut<1>(f, a, tile);
  if (f.bits == 2) return tile_lut<2>(f, a, tile);
  return tile_lut<3>(f, a, tile);
}

#include "../../isa/end.h"
#endif
