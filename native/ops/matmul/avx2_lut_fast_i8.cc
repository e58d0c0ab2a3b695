// matmul by tables of bytes at level avx2: as avx2_lut_i8.cc, two panels in a vector, with one lookup for
// two. Lookups are added as words: all of a word (modulo 2^16), and its high byte, the odd row; the even row
// is what remains. A step has at most 64 lookups of 255 for a row, 16320. Per 64 bytes of two panels of a
// 1-bit plane: 4 insertions, 12 operations to indices, 8 lookups, 24 to add them; per step about 30 more.
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

// What all panels share of a step of a row of a.
struct Step {
  const uint8_t* tables[2];  // per plane
  float scale[2];            // per plane: what an entry counts
  float start, moment;

  void set(const PanelFormat& f, const Activations& a, int64_t m, int64_t k, int64_t step) {
    for (int p = 0; p < f.plane_count; ++p) {
      const Plane& plane = f.planes[p];
      const int kind = plane.bits - 1;
      tables[p] = a.fast_tables[kind] + (m * a.stride + k) / kGroup * fast_table_bytes(plane.bits);
      scale[p] = a.table_scales[kind][m * pieces(a.stride, kTableGroup) + k / kTableGroup] *
                 static_cast<float>(1 << (plane.shift + f.shift));
    }
    const int64_t at = m * pieces(a.stride, step) + k / step;
    start = a.table_starts[at];
    moment = a.table_moments[at];
  }
};

// Sums of lookups of two rows to a word.
struct Words {
  __m256i all, odd;

  void add(const uint8_t* from, __m256i at) {
    const __m256i found = _mm256_shuffle_epi8(table(from), at);
    all = _mm256_add_epi16(all, found);
    odd = _mm256_add_epi16(odd, _mm256_srli_epi16(found, 8));
  }
  // As floats, rows as in Four.
  Four floats() const {
    const __m256i even = _mm256_sub_epi16(all, _mm256_slli_epi16(odd, 8));
    const __m256i rows[2] = {_mm256_unpacklo_epi16(even, odd), _mm256_unpackhi_epi16(even, odd)};
    const __m256i zero = _mm256_setzero_si256();
    Four result;
    for (int i = 0; i < 2; ++i) {
      result.of[2 * i] = _mm256_cvtepi32_ps(_mm256_unpacklo_epi16(rows[i], zero));
      result.of[2 * i + 1] = _mm256_cvtepi32_ps(_mm256_unpackhi_epi16(rows[i], zero));
    }
    return result;
  }
};

// Adds what a plane of two panels' chunks looks up, for kM rows of a; chunks lie `stride` apart. Fetches what
// lies `ahead` of each line.
template <int kBits, int kM>
inline void look_up(const uint8_t* p, const uint8_t* q, int64_t stride, int64_t chunks, int64_t ahead,
                    const Step* steps, int plane, Words* sums) {
  const __m256i nibble = _mm256_set1_epi8(15);
  for (int64_t c = 0; c < chunks; ++c, p += stride, q += stride) {
#pragma GCC unroll 2
    for (int run = 0; run < kBits; ++run) {
      _mm_prefetch(reinterpret_cast<const char*>(p + 64 * run + ahead), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(q + 64 * run + ahead), _MM_HINT_T0);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const __m256i bytes = load_run(p + 64 * run, q + 64 * run, j);
        const __m256i low = _mm256_and_si256(bytes, nibble);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
#pragma GCC unroll 4
        for (int m = 0; m < kM; ++m) {
          const uint8_t* tables = steps[m].tables[plane] + c * fast_table_bytes(kBits) + 128 * run + 16 * j;
          sums[m].add(tables, low);
          sums[m].add(tables + 64, high);
        }
      }
    }
  }
}

// sums = sums + scales * (start + what was looked up)
template <int kBits, bool kOffsets>
inline void accumulate(const Words& main, const Words& rest, const Step& step, const Four& scales,
                       const Four& offsets, Four* sums) {
  const Four first = main.floats(), second = kBits == 3 ? rest.floats() : first;
  const __m256 start = _mm256_set1_ps(step.start), moment = _mm256_set1_ps(step.moment);
  for (int i = 0; i < 4; ++i) {
    __m256 looked = _mm256_fmadd_ps(first.of[i], _mm256_set1_ps(step.scale[0]), start);
    if (kBits == 3) looked = _mm256_fmadd_ps(second.of[i], _mm256_set1_ps(step.scale[1]), looked);
    __m256 sum = _mm256_fmadd_ps(scales.of[i], looked, sums->of[i]);
    if (kOffsets) sum = _mm256_fmadd_ps(offsets.of[i], moment, sum);
    sums->of[i] = sum;
  }
}

// A step of two panels times kM rows of a. at: where its chunks begin in a panel; block: their header.
template <int kBits, bool kOffsets, int kM>
inline void add_step(const PanelFormat& f, const uint8_t* p, const uint8_t* q, int64_t block, int64_t at,
                     int64_t chunks, int64_t ahead, const Step* steps, bool bf16, Four* sums) {
  constexpr int kMain = kBits == 1 ? 1 : 2;
  Words main[kM], rest[kM];
  for (int m = 0; m < kM; ++m) main[m].all = main[m].odd = _mm256_setzero_si256();
  for (int m = 0; m < kM; ++m) rest[m].all = rest[m].odd = _mm256_setzero_si256();
  look_up<kMain, kM>(p + at, q + at, 64 * kBits, chunks, ahead, steps, 0, main);
  if (kBits == 3) look_up<1, kM>(p + at + 128, q + at + 128, 64 * kBits, chunks, ahead, steps, 1, rest);
  const Four scales = load_scales(f, p + block, q + block, bf16);
  const Four offsets = kOffsets ? zero_point_offsets(f, p + block, q + block, scales, bf16) : scales;
#pragma GCC unroll 4
  for (int m = 0; m < kM; ++m) {
    accumulate<kBits, kOffsets>(main[m], rest[m], steps[m], scales, offsets, &sums[m]);
  }
}

template <int kBits, bool kOffsets, int kM>
void tile_lut(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const int pairs = static_cast<int>(tile.panel_count + 1) / 2;
  const bool bf16 = f.scale_type == BL_DTYPE_bf16;
  const int64_t step = table_step_of(f), all_chunks = pieces(f.cols, kChunk), step_chunks = step / kChunk;
  Step steps[kM];
  Four sums[kPairs][kM];
  for (int pair = 0; pair < pairs; ++pair) {
    for (int m = 0; m < kM; ++m) load_sums(tile, m, pair, &sums[pair][m]);
  }
  for (int64_t i = 0; i < all_chunks; i += step_chunks) {
    const int64_t column = i * kChunk, block = column / f.elements * f.block_bytes;
    const int64_t at = block + f.chunk_offset + column % f.elements / kChunk * f.chunk_bytes;
    const int64_t chunks = all_chunks - i < step_chunks ? all_chunks - i : step_chunks;
    for (int m = 0; m < kM; ++m) steps[m].set(f, a, tile.m_begin + m, column, step);
    // Past a panel's end follow this thread's next panels.
    const int64_t ahead =
        at + kAhead < f.panel_bytes ? kAhead : kAhead + (tile.panel_count - 1) * tile.panel_stride;
    for (int pair = 0; pair < pairs; ++pair) {
      const uint8_t* p = tile.panels + 2 * pair * tile.panel_stride;
      const uint8_t* q = 2 * pair + 1 < tile.panel_count ? p + tile.panel_stride : p;
      _mm_prefetch(reinterpret_cast<const char*>(p + at - 32 + ahead), _MM_HINT_T0);  // the headers
      _mm_prefetch(reinterpret_cast<const char*>(q + at - 32 + ahead), _MM_HINT_T0);
      if (chunks == 4) {  // a count that the compiler knows
        add_step<kBits, kOffsets, kM>(f, p, q, block, at, 4, ahead, steps, bf16, sums[pair]);
      } else {
        add_step<kBits, kOffsets, kM>(f, p, q, block, at, chunks, ahead, steps, bf16, sums[pair]);
      }
    }
  }
  for (int pair = 0; pair < pairs; ++pair) {
    for (int m = 0; m < kM; ++m) store_sums(tile, m, pair, sums[pair][m]);
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
