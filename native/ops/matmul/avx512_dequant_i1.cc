// Compute i1 at level avx512: signs times signs by XOR and counts of bits in bytes.
//
// A chunk is one vector whose byte 16 j + r has the weights j, j + 4, ... of row r; the activations' word,
// each byte j repeated over 16 rows, meets them. Per chunk and row of a: a load and shuffle of the word, XOR,
// count, add; counts stay in bytes for up to seven chunks (7 * 32 = 224 mismatches of a row), then are
// widened once.
#include <cstdint>
#include <cstring>

#include "kernel.h"
#include "signs.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

namespace bitloom {
namespace {

// AVX512_BITALG counts the bits of bytes in one instruction; the level does not imply it, though all
// processors that have the level's features today have it.
bool has_bitalg() {
  static const bool has = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ecx >> 12 & 1) != 0;
  }();
  return has;
}

}  // namespace
}  // namespace bitloom

// clang-format off: the order of these is their meaning
#include "../../isa/avx512_begin.h"
// clang-format on

constexpr int64_t kBytesChunks = 7;
// Bytes ahead that are asked for: 16 chunks, some 300 cycles at 20 a chunk.
constexpr int64_t kPrefetch = 1024;

struct Bitalg {
  __attribute__((target("avx512bitalg"))) static inline __m512i count(__m512i bytes) {
    return _mm512_popcnt_epi8(bytes);
  }
};
// Counts of nibbles by table.
struct Shuffle {
  static inline __m512i count(__m512i bytes) {
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i low = _mm512_set1_epi8(15);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
    return _mm512_add_epi8(_mm512_shuffle_epi8(table, _mm512_and_si512(bytes, low)),
                           _mm512_shuffle_epi8(table, high));
  }
};

// Sums over the four bytes of each row, widened.
static inline __m512i widen(__m512i bytes) {
  const __m256i half = _mm256_add_epi8(_mm512_castsi512_si256(bytes), _mm512_extracti64x4_epi64(bytes, 1));
  return _mm512_cvtepu8_epi32(_mm_add_epi8(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}

static inline __m512 load_scales(const PanelFormat& f, const uint8_t* scales) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales));
  const __m512 values = f.scale_type == BL_DTYPE_bf16
                            ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))
                            : _mm512_cvtph_ps(halves);
  return _mm512_mul_ps(values, _mm512_set1_ps(f.scale_factor));
}

// Mismatches of one group, for kRows rows of a whose words lie `stride` apart.
template <typename Count, int kRows>
__attribute__((always_inline)) static inline void mismatches(const SignGroup& group, int64_t stride,
                                                             __m512i* totals) {
  const __m512i spread =
      _mm512_set_epi32(0x03030303, 0x03030303, 0x03030303, 0x03030303, 0x02020202, 0x02020202, 0x02020202,
                       0x02020202, 0x01010101, 0x01010101, 0x01010101, 0x01010101, 0, 0, 0, 0);
  for (int r = 0; r < kRows; ++r) totals[r] = _mm512_setzero_si512();
  for (int64_t begin = 0; begin < group.chunks; begin += kBytesChunks) {
    const int64_t end = begin + kBytesChunks < group.chunks ? begin + kBytesChunks : group.chunks;
    __m512i bytes[kRows];
    for (int r = 0; r < kRows; ++r) bytes[r] = _mm512_setzero_si512();
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const __m512i codes = _mm512_loadu_si512(group.codes + 64 * chunk);
      _mm_prefetch(reinterpret_cast<const char*>(group.codes + 64 * chunk + kPrefetch), _MM_HINT_T0);
      __m512i mask = _mm512_set1_epi32(-1);
      if (chunk + 1 == group.chunks && group.last != ~0u) {  // the end of a row
        mask = _mm512_shuffle_epi8(_mm512_set1_epi32(static_cast<int>(group.last)), spread);
      }
      for (int r = 0; r < kRows; ++r) {
        const int word = static_cast<int>(group.signs[r * stride + chunk]);
        const __m512i signs = _mm512_shuffle_epi8(_mm512_set1_epi32(word), spread);
        // (codes ^ signs) & mask
        const __m512i differ = _mm512_ternarylogic_epi32(codes, signs, mask, 0x28);
        bytes[r] = _mm512_add_epi8(bytes[r], Count::count(differ));
      }
    }
    for (int r = 0; r < kRows; ++r) totals[r] = _mm512_add_epi32(totals[r], widen(bytes[r]));
  }
}

template <typename Count, int kRows>
__attribute__((always_inline)) static inline void rows_i1(const PanelFormat& f, const Activations& a,
                                                          const Tile& tile, const uint8_t* panel, int64_t m,
                                                          float* out) {
  const int64_t stride = a.stride / kChunk;
  const uint32_t* signs = a.signs + m * stride;
  __m512 sums[kRows];
  for (int r = 0; r < kRows; ++r) {
    sums[r] = tile.accumulate ? _mm512_loadu_ps(out + r * tile.stride) : _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < f.cols; k += f.group) {
    const SignGroup group = sign_group(f, panel, signs, k);
    __m512i totals[kRows];
    mismatches<Count, kRows>(group, stride, totals);
    const __m512 scales = load_scales(f, group.scales);
    const __m512i count = _mm512_set1_epi32(static_cast<int>(group.count));
    for (int r = 0; r < kRows; ++r) {
      const __m512i sum = _mm512_sub_epi32(count, _mm512_slli_epi32(totals[r], 1));
      const __m512 both = _mm512_mul_ps(scales, _mm512_set1_ps(a.scales[m + r]));
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), both, sums[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(out + r * tile.stride, sums[r]);
}

// Four rows of a share the loads of the codes.
template <typename Count>
__attribute__((always_inline)) static inline void tile_i1(const PanelFormat& f, const Activations& a,
                                                          const Tile& tile) {
  for (int64_t p = 0; p < tile.panel_count; ++p) {
    const uint8_t* panel = tile.panels + p * tile.panel_stride;
    float* out = tile.values + p * kPanelRows;
    int64_t m = tile.m_begin;
    for (; m + 4 <= tile.m_end; m += 4, out += 4 * tile.stride) rows_i1<Count, 4>(f, a, tile, panel, m, out);
    for (; m < tile.m_end; ++m, out += tile.stride) rows_i1<Count, 1>(f, a, tile, panel, m, out);
  }
}

__attribute__((target("avx512bitalg"))) static void tile_bitalg(const PanelFormat& f, const Activations& a,
                                                                const Tile& tile) {
  tile_i1<Bitalg>(f, a, tile);
}

void matmul_dequant_i1(const PanelFormat& f, const Activations& a, const Tile& tile) {
  if (has_bitalg()) {
    tile_bitalg(f, a, tile);
  } else {
    tile_i1<Shuffle>(f, a, tile);
  }
}

// clang-format off
#include "../../isa/end.h"
// clang-format on
#endif  // __x86_64__
