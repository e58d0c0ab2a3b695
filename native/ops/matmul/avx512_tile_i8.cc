// Algorithm tile at level avx512: the int8 weights of amx_tile_i8.cc, plus 128, times int8 activations by
// vpdpbusd.
//
// A block of 32 columns x 512 stays in L1 (16 KB) while all rows of a pass over it, eight at a time: a step
// of four weights is 2 loads of b, 8 broadcasts of a and 16 vpdpbusd, two a cycle. Unpacking costs some 90
// cycles for 1024 weights, the products 8 cycles for each row of a.
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "tile.h"

#include "../../isa/avx512_begin.h"
#include "../../isa/simd_avx512.inl"
#include "avx512_decode.inl"
#include "avx512_tile_scales.inl"
#include "avx512_tile_codes.inl"
#include "avx512_tile_i8.inl"

namespace {

constexpr int kRows = 8;

struct Memory {
  alignas(64) uint8_t weights[2 * 16 * kTileDepth];  // [steps][2][16][64]
  PanelSteps steps[2];
  PanelScales scales[2];
  alignas(64) int16_t table[256];
};
static_assert(sizeof(Memory) <= size_t{1} << 17);

// As assembly: GCC 12 copies each sum to another register and back around the intrinsic, 32 moves a step.
inline void add_products(__m512i& sum, __m512i b, __m512i a) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(b), "v"(a));
}

// sums[r][p]: from `starts` of rows r, plus rows of a (in tiles) times a block.
inline void multiply(const int8_t* a, const int32_t* starts, int64_t start_step, const uint8_t* weights,
                     int64_t steps, __m512i sums[kRows][2]) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = _mm512_set1_epi32(starts[r * start_step]);
  for (int64_t step = 0; step < steps; ++step, a += 1024, weights += 2048) {
    for (int v = 0; v < 16; ++v) {
      const __m512i b0 = _mm512_load_si512(weights + 64 * v), b1 = _mm512_load_si512(weights + 1024 + 64 * v);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        int32_t four;
        std::memcpy(&four, a + 64 * r + 4 * v, 4);
        const __m512i x = _mm512_set1_epi32(four);
        add_products(sums[r][0], b0, x);
        add_products(sums[r][1], b1, x);
      }
    }
  }
}

template <int kBits, Map kMap, int kParts>
void run(const PanelFormat& f, const TileRecipe& r, const Activations& a, const Tile& tile) {
  Memory& memory = *reinterpret_cast<Memory*>(tile.scratch);
  write_table(f, r, true, memory.table);
  using Unpacker = ChunkUnpacker<kBits, kMap, kParts>;
  ChunkCursor cursor(f, r, tile);
  const ScalesReader scales(f, r, 64 + 16384);
  const int64_t blocks = tile_blocks(a.stride);
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t begin = block * kTileDepth, steps = std::min(kTileDepth, a.stride - begin) / kStep;
    read_scales(scales, cursor, begin, memory.scales, memory.steps);
    cursor.start(begin, a.stride, memory.scales, memory.weights);
    // To L1: there are processors on which fetches to L2 alone do nothing (AMD Zen 5).
    unpack_chunks<Unpacker, _MM_HINT_T0>(cursor, memory.table, cursor.left);
    for (int64_t m = tile.m_begin; m < tile.m_end; m += kRows) {
      // Rows past the last of a are the zeros that fill its tile; sums of rows that are not there start
      // anyhow.
      const int64_t rows = std::min<int64_t>(kRows, tile.m_end - m);
      int32_t starts[kRows] = {};
      for (int64_t i = 0; i < rows; ++i) starts[i] = a.starts[(m + i) * blocks + block];
      __m512i sums[kRows][2];
      multiply(a.codes + tile_at(m, begin, a.stride, kStep), starts, 1, memory.weights, steps, sums);
#pragma GCC unroll 8
      for (int64_t i = 0; i < kRows; ++i) {
        if (i >= rows) break;
        const int64_t at = (m + i) * blocks + block;
#pragma GCC unroll 2
        for (int p = 0; p < 2; ++p) {  // unrolled, lest an index that varies keeps the sums in memory
          if (p >= tile.panel_count) break;
          float* out = tile.values + (m + i - tile.m_begin) * tile.stride + 16 * p;
          const __m512 before = block > 0 || tile.accumulate ? _mm512_loadu_ps(out) : _mm512_setzero_ps();
          const __m512 both =
              _mm512_mul_ps(_mm512_load_ps(memory.steps[p].step), _mm512_set1_ps(a.scales[at]));
          __m512 sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i][p]), both, before);
          if (r.exact && r.has_offsets) {
            sum = _mm512_fmadd_ps(_mm512_load_ps(memory.steps[p].offset), _mm512_set1_ps(a.moments[at]), sum);
          }
          _mm512_storeu_ps(out, sum);
        }
      }
    }
  }
}

}  // namespace

void matmul_tile_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const TileRecipe r = tile_recipe(f);
  with_unpacker(f, r, [&]<int kBits, Map kMap, int kParts>() { run<kBits, kMap, kParts>(f, r, a, tile); });
}
#include "../../isa/end.h"
#endif  // __x86_64__
