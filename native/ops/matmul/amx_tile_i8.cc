// Algorithm tile on AMX: int8 tiles of weights, unpacked between the tile products of the block before.
//
// A unit is 32 columns of b and up to 256 rows of a. Its weights are unpacked 512 deep into two panels of
// tiles (16 KB, which stay in L1); rows of a pass over them in blocks of 32 (16 KB of tiles, from L2) with 2
// x 2 tiles of sums. A step of 64 is 4 tile products of 16 cycles. Behind each stands a quarter of a chunk of
// the next block, or a few of its scales, and a row of c that takes the sums of the rows before:
// amx_tiles.inl says what fits there. Per 32 rows and block: 512 cycles of products; 192 multiplications and
// conversions for c; of 36 chunks' worth of unpacking, 45 cycles each, 200 cycles at 256 rows and all of 1600
// at 32.
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "tile.h"

#include "../../isa/amx_begin.h"
#include "../../isa/simd_avx512.inl"
#include "avx512_decode.inl"
#include "avx512_tile_scales.inl"
#include "avx512_tile_codes.inl"
#include "avx512_tile_i8.inl"
#include "amx_tiles.inl"

namespace {

struct Memory {
  alignas(64) uint8_t weights[2][2 * 16 * kTileDepth];  // [parity][steps][2][16][64]
  alignas(64) int32_t sums[2][32 * 32];                 // [parity][32][32]
  PanelSteps steps[3][2];  // [block % 3][panels]: of the one added, multiplied, unpacked
  PanelScales scales[2];
  alignas(64) int16_t table[256];
};
static_assert(sizeof(Memory) <= size_t{1} << 17);

// Adds sums [32][32] of a block to c, a row at a time.
struct Adder {
  int64_t left = 0;  // rows
  const int32_t* sums;
  const float *scales, *moments;  // of the next row of a; `blocks` apart
  float* out;
  __m512 steps[2], offsets[2];
  __mmask16 before;  // what stands in c already
  int64_t blocks, stride;
  bool two, has_offsets;  // panels; the format is exact and has offsets

  __attribute__((always_inline)) void row() {
    if (left <= 0) return;
    --left;
    const __m512 scale = _mm512_set1_ps(*scales);
    for (int p = 0; p < 2; ++p) {
      if (p == 1 && !two) break;
      const __m512 integer = _mm512_cvtepi32_ps(_mm512_load_si512(sums + 16 * p));
      __m512 sum = _mm512_maskz_loadu_ps(before, out + 16 * p);
      sum = _mm512_fmadd_ps(integer, _mm512_mul_ps(steps[p], scale), sum);
      if (has_offsets) sum = _mm512_fmadd_ps(offsets[p], _mm512_set1_ps(*moments), sum);
      _mm512_storeu_ps(out + 16 * p, sum);
    }
    _mm_prefetch(reinterpret_cast<const char*>(out + 4 * stride), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(out + 4 * stride + 16), _MM_HINT_T0);
    sums += 32;
    scales += blocks;
    moments += blocks;
    out += stride;
  }
};

template <int kBits, Map kMap, int kParts>
void run(const PanelFormat& f, const TileRecipe& r, const Activations& a, const Tile& tile) {
  Memory& memory = *reinterpret_cast<Memory*>(tile.scratch);
  write_table(f, r, false, memory.table);
  using Unpacker = ChunkUnpacker<kBits, kMap, kParts>;
  Unpacker unpacker(memory.table);
  ChunkCursor cursor(f, r, tile);
  BlockScales scales{{f, r, 128}};
  Adder adder;
  const int64_t blocks = adder.blocks = tile_blocks(a.stride);
  adder.stride = tile.stride;
  adder.two = tile.panel_count == 2;
  adder.has_offsets = r.exact && r.has_offsets;
  const int64_t row_blocks = (tile.m_end - tile.m_begin + 31) / 32;
  scales.start(cursor, 0, memory.scales, memory.steps[0]);
  while (!scales.done()) scales.piece(cursor);
  cursor.start(0, a.stride, memory.scales, memory.weights[0]);
  cursor.template unpack<Unpacker>(memory.table, cursor.left);
  int parity = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t steps = std::min(kTileDepth, a.stride - block * kTileDepth) / kStep;
    const uint8_t* weights = memory.weights[block % 2];
    const bool more = block + 1 < blocks;
    int64_t pace = 0, due = 0, steps_left = row_blocks * steps;  // chunks per 2^16 steps
    if (more) {
      cursor.start((block + 1) * kTileDepth, a.stride, memory.scales, memory.weights[(block + 1) % 2]);
      scales.start(cursor, (block + 1) * kTileDepth, memory.scales, memory.steps[(block + 1) % 3]);
      // The scales take the first steps, a piece in each gap, but no more than half of all steps.
      const int64_t first = std::min((scales.pieces() + 3) / 4, steps_left / 2);
      pace = ((cursor.left << 16) + steps_left - first - 1) / (steps_left - first);
    }
    // Tiles of the rows from m on; the second sixteen of rows that are not there are the first again.
    const auto tiles_of = [&](int64_t m) {
      const uint8_t* rows =
          reinterpret_cast<const uint8_t*>(a.codes) + m * a.stride + block * kTileDepth * 16;
      return StepTiles{rows, tile.m_end - m > 16 ? rows + 16 * a.stride : rows, weights};
    };
    __asm__ volatile("" : : : "memory");  // tile loads read what vectors stored
    load_step(tiles_of(tile.m_begin));
    for (int64_t m = tile.m_begin; m < tile.m_end; m += 32, parity ^= 1) {
      zero_sums();
      StepTiles next = tiles_of(m);
      for (int64_t step = 0; step < steps; ++step) {
        next.first += 1024;
        next.second += 1024;
        next.weights += 2048;
        if (step + 1 == steps) next = tiles_of(m + 32 < tile.m_end ? m + 32 : m);
        // Sums of the rows before were stored a moment ago: a step later they can be read without waiting.
        if (step == 1) adder.row(), adder.row(), adder.row(), adder.row();
        const bool scaling = more && !scales.done();
        if (!scaling) due += pace;
        const bool unpack = !scaling && due >= 65536 && cursor.left > 0, add = step > 0;
        if (unpack) unpacker.begin(cursor.m, cursor.h);
        multiply_i8(next, [&]<int q>() __attribute__((always_inline)) {
          if (unpack) {
            unpacker.template quarter<q>(cursor.chunk, cursor.out);
          } else if (scaling) {
            scales.piece(cursor);
          }
          if (add) adder.row();
        });
        if (scaling && 2 * --steps_left <= row_blocks * steps) {
          while (!scales.done()) scales.piece(cursor);
        }
        if (!unpack) continue;
        cursor.template prefetch<kBits>();
        cursor.next();
        cursor.template unpack<Unpacker>(memory.table, due / 65536 - 1);
        due %= 65536;
      }
      while (adder.left > 0) adder.row();
      store_sums(memory.sums[parity]);
      adder.left = std::min<int64_t>(32, tile.m_end - m);
      adder.sums = memory.sums[parity];
      adder.scales = a.scales + m * blocks + block;
      adder.moments = a.moments + m * blocks + block;
      adder.out = tile.values + (m - tile.m_begin) * tile.stride;
      adder.before = block > 0 || tile.accumulate ? 0xffff : 0;
      for (int p = 0; p < 2; ++p) {
        adder.steps[p] = _mm512_load_ps(memory.steps[block % 3][p].step);
        adder.offsets[p] = _mm512_load_ps(memory.steps[block % 3][p].offset);
      }
    }
    while (more && !scales.done()) scales.piece(cursor);
    cursor.template unpack<Unpacker>(memory.table, cursor.left);
  }
  while (adder.left > 0) adder.row();
}

}  // namespace

void matmul_tile_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const TileRecipe r = tile_recipe(f);
  configure_tiles();
  with_unpacker(f, r, [&]<int kBits, Map kMap, int kParts>() { run<kBits, kMap, kParts>(f, r, a, tile); });
  _tile_release();
}
#include "../../isa/end.h"
#endif  // __x86_64__
