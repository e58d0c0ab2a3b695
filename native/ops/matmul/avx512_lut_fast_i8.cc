// matmul by tables of bytes at level avx512: as avx512_lut_i8.cc with one lookup for two, and sums that are
// scaled once per step of up to 128 weights. Per 64 bytes of a 1-bit plane (512 weights), 8 vector operations:
// a transposition, three for two vectors of indices, and for each row of a two lookups and two vpdpbusd; per
// step five more.
#include "kernel.h"
#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>

// clang-format off: the order of these is their meaning
#include "../../isa/avx512_begin.h"
#include "avx512_lut.inl"
// clang-format on

namespace {

constexpr int kRows = 4;  // as in kernels.inc

// What all panels share of a step of a row of a.
struct Step {
  const uint8_t* tables[2];  // per plane
  __m512 scale[2];           // per plane: what an entry counts
  __m512 start, moment;
};

inline void set_step(const PanelFormat& f, const Activations& a, int64_t m, int64_t k, int64_t step, Step* s) {
  for (int p = 0; p < f.plane_count; ++p) {
    const Plane& plane = f.planes[p];
    const int kind = plane.bits - 1;
    s->tables[p] =
        a.fast_tables[kind] + (m * a.stride + k) / kGroup * fast_table_bytes(plane.bits);
    const float scale = a.table_scales[kind][m * pieces(a.stride, kTableGroup) + k / kTableGroup];
    s->scale[p] = _mm512_set1_ps(scale * static_cast<float>(1 << (plane.shift + f.shift)));
  }
  const int64_t at = m * pieces(a.stride, step) + k / step;
  s->start = _mm512_set1_ps(a.table_starts[at]);
  s->moment = _mm512_set1_ps(a.table_moments[at]);
}

// Adds what a plane of a panel's chunks looks up, for kM rows of a; chunks lie `stride` apart. Fetches what
// lies `ahead` of each line: spread over the work, as few lines can be under way at a time.
template <int kBits, int kM>
inline void look_up(const uint8_t* plane, int64_t stride, int64_t chunks, int64_t ahead, const Step* steps,
                    int p, const IndexConstants& k, __m512i* sums) {
  const __m512i ones = _mm512_set1_epi8(1);
  for (int64_t c = 0; c < chunks; ++c, plane += stride) {
#pragma GCC unroll 2
    for (int run = 0; run < kBits; ++run) {
      _mm_prefetch(reinterpret_cast<const char*>(plane + 64 * run + ahead), _MM_HINT_T1);
      const Indices at = indices(plane + 64 * run, k);
#pragma GCC unroll 4
      for (int m = 0; m < kM; ++m) {
        const uint8_t* tables = steps[m].tables[p] + c * fast_table_bytes(kBits) + 128 * run;
        const __m512i first = _mm512_permutexvar_epi8(at.half[0], _mm512_loadu_si512(tables));
        const __m512i second = _mm512_permutexvar_epi8(at.half[1], _mm512_loadu_si512(tables + 64));
        sums[m] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sums[m], first, ones), second, ones);
      }
    }
  }
}

// A step of a panel: `chunks` of its chunks times kM rows of a, added to values of panel columns.
template <int kBits, bool kOffsets, int kM>
inline void add_step(const PanelFormat& f, const uint8_t* header, const uint8_t* chunk, int64_t chunks,
                     int64_t ahead, const Step* steps, const IndexConstants& k, bool bf16, __m512* sums) {
  constexpr int kMain = kBits == 1 ? 1 : 2;
  const __m512 scale = load_halves(header, bf16);
  const __m512 offset = kOffsets ? zero_point_offset(f, header, scale, bf16) : scale;
  __m512i main[kM], rest[kM];
#pragma GCC unroll 4
  for (int m = 0; m < kM; ++m) main[m] = rest[m] = _mm512_setzero_si512();
  look_up<kMain, kM>(chunk, 64 * kBits, chunks, ahead, steps, 0, k, main);
  if (kBits == 3) look_up<1, kM>(chunk + 128, 64 * kBits, chunks, ahead, steps, 1, k, rest);
#pragma GCC unroll 4
  for (int m = 0; m < kM; ++m) {
    __m512 looked = _mm512_fmadd_ps(_mm512_cvtepi32_ps(main[m]), steps[m].scale[0], steps[m].start);
    if (kBits == 3) looked = _mm512_fmadd_ps(_mm512_cvtepi32_ps(rest[m]), steps[m].scale[1], looked);
    sums[m] = _mm512_fmadd_ps(scale, looked, sums[m]);
    if (kOffsets) sums[m] = _mm512_fmadd_ps(offset, steps[m].moment, sums[m]);
  }
}

template <int kBits, bool kOffsets, int kM>
void tile_lut(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const int panels = static_cast<int>(tile.panel_count);
  const IndexConstants k;
  const bool bf16 = f.scale_type == BL_DTYPE_bf16;
  const int64_t step = table_step_of(f), all_chunks = pieces(f.cols, kChunk), step_chunks = step / kChunk;
  Step steps[kM];
  __m512 sums[8][kM];
  for (int p = 0; p < panels; ++p) {
    for (int m = 0; m < kM; ++m) {
      const float* values = tile.values + m * tile.stride + kPanelRows * p;
      sums[p][m] = tile.accumulate ? _mm512_loadu_ps(values) : _mm512_setzero_ps();
    }
  }
  for (int64_t i = 0; i < all_chunks; i += step_chunks) {
    const int64_t column = i * kChunk;
    const int64_t block = column / f.elements * f.block_bytes;
    const int64_t first = block + f.chunk_offset + column % f.elements / kChunk * f.chunk_bytes;
    const int64_t chunks = all_chunks - i < step_chunks ? all_chunks - i : step_chunks;
    for (int m = 0; m < kM; ++m) set_step(f, a, tile.m_begin + m, column, step, &steps[m]);
    const int64_t ahead = ahead_of(f, tile, first);
    for (int p = 0; p < panels; ++p) {
      const uint8_t* panel = tile.panels + p * tile.panel_stride;
      _mm_prefetch(reinterpret_cast<const char*>(panel + first - 32 + ahead), _MM_HINT_T1);  // the header
      if (chunks == 4) {  // a count that the compiler knows
        add_step<kBits, kOffsets, kM>(f, panel + block, panel + first, 4, ahead, steps, k, bf16, sums[p]);
      } else {
        add_step<kBits, kOffsets, kM>(f, panel + block, panel + first, chunks, ahead, steps, k, bf16, sums[p]);
      }
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
      return tile_lut<kBits, kOffsets, 1>(f, a, tile);
    case 2:
      return tile_lut<kBits, kOffsets, 2>(f, a, tile);
    case 3:
      return tile_lut<kBits, kOffsets, 3>(f, a, tile);
    default:
      return tile_lut<kBits, kOffsets, 4>(f, a, tile);
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
