// Algorithm tile on AMX: int8 tiles of weights, unpacked between the tile products of the block before.
//
// A unit is 32 columns of b and up to 256 rows of a. Its weights are unpacked 512 deep into two panels of tiles (16 KB,
// which stay in L1); rows of a pass over them in blocks of 32 (16 KB of tiles, from L2) with 2 x 2 tiles of
// sums. A step of 64 is 4 tile products of 16 cycles; the vector ports, idle meanwhile, unpack the next block and
// add the sums of the block of rows before to c. Per 32 rows and block: 512 cycles of products; 192 vector
// instructions for c (load, convert, multiply, fma with memory), 96 cycles of two ports; of unpacking, 34 pieces
// spread over all blocks of rows, about 45 cycles each: 190 cycles at 256 rows, all of 1530 at 32.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernel.h"
#include "tile.h"

#include "../../isa/amx_begin.h"
#include "avx512_tile_scales.inl"
#include "avx512_tile_codes.inl"
#include "avx512_tile_i8.inl"
#include "amx_tiles.inl"

namespace {

struct Memory {
  alignas(64) uint8_t weights[2][2 * 16 * kTileDepth];  // [parity][steps][panels][16][64]
  alignas(64) int32_t sums[2][32 * 32];                 // [parity][32][32]
  PanelSteps steps[3][2];  // [block % 3][panels]: of the one added, multiplied, unpacked
  PanelScales scales;
};

// Adds sums [rows][16 * panels] of one block to c.
struct Adder {
  const Activations& a;
  const TileRecipe& r;
  const Tile& tile;
  int64_t blocks;

  const int32_t* sums = nullptr;
  const PanelSteps* steps;
  int64_t block, m, row, rows;  // next and end, from row m of a

  void start(const int32_t* sums_, const PanelSteps* steps_, int64_t block_, int64_t m_, int64_t rows_) {
    sums = sums_;
    steps = steps_;
    block = block_;
    m = m_;
    row = 0;
    rows = rows_;
  }
  template <int kPanels>
  void add(int64_t count) {
    const int64_t end = std::min(row + count, rows);
    __m512 step[kPanels];
    for (int p = 0; p < kPanels; ++p) step[p] = _mm512_load_ps(steps[p].step);
    for (; row < end; ++row) {
      const int64_t at = (m + row) * blocks + block;
      float* out = tile.values + (m + row - tile.m_begin) * tile.stride;
      const __m512 scale = _mm512_set1_ps(a.scales[at]);
      for (int p = 0; p < kPanels; ++p) {
        const __m512 before = block > 0 || tile.accumulate ? _mm512_loadu_ps(out + 16 * p) : _mm512_setzero_ps();
        const __m512 integer = _mm512_cvtepi32_ps(_mm512_load_si512(sums + (row * kPanels + p) * 16));
        __m512 sum = _mm512_fmadd_ps(integer, _mm512_mul_ps(step[p], scale), before);
        if (r.exact && r.has_offsets) {
          sum = _mm512_fmadd_ps(_mm512_load_ps(steps[p].offset), _mm512_set1_ps(a.moments[at]), sum);
        }
        _mm512_storeu_ps(out + 16 * p, sum);
      }
    }
  }
};

// Spreads `pieces` over `slots`.
struct Pace {
  int64_t pieces, slots, done = 0, due = 0;
  template <typename Run>
  void slot(const Run& run) {
    due += pieces;
    for (; done * slots < due; ++done) run();
  }
};

template <int kPanels>
void run(const PanelFormat& f, const Activations& a, const Tile& tile) {
  Memory& memory = *reinterpret_cast<Memory*>(tile.scratch);
  const TileRecipe r = tile_recipe(f);
  const Unpacker unpacker(f, r, false);
  BlockUnpacker unpack{f, r, unpacker, tile, 128, &memory.scales, nullptr, nullptr, 0, 0, 0, 0, 0, nullptr, 0};
  const int64_t blocks = tile_blocks(a.stride);
  Adder adder{a, r, tile, blocks, nullptr, nullptr, 0, 0, 0, 0};
  unpack.start(0, a.stride, memory.weights[0], memory.steps[0]);
  for (int64_t i = unpack.pieces(); i > 0; --i) unpack.piece();
  const int64_t row_blocks = (tile.m_end - tile.m_begin + 31) / 32;
  int parity = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t steps = std::min(kTileDepth, a.stride - block * kTileDepth) / kStep;
    Pace pace{0, row_blocks * steps};
    if (block + 1 < blocks) {
      unpack.start((block + 1) * kTileDepth, a.stride, memory.weights[(block + 1) % 2], memory.steps[(block + 1) % 3]);
      pace.pieces = unpack.pieces();
    }
    __asm__ volatile("" : : : "memory");  // tile loads read what vectors stored
    for (int64_t m = tile.m_begin; m < tile.m_end; m += 32, parity ^= 1) {
      const bool pair = tile.m_end - m > 16;
      const int8_t* rows = a.codes + m * a.stride + block * kTileDepth * 16;
      const uint8_t* weights = memory.weights[block % 2];
      zero_sums();
      for (int64_t step = 0; step < steps; ++step, rows += 1024, weights += 1024 * kPanels) {
        multiply_i8<kPanels>(rows, pair ? rows + 16 * a.stride : nullptr, weights);
        pace.slot([&] { unpack.piece(); });
        if (adder.sums != nullptr) adder.add<kPanels>(4);
      }
      if (adder.sums != nullptr) adder.add<kPanels>(32);
      store_sums<kPanels>(memory.sums[parity], pair);
      adder.start(memory.sums[parity], memory.steps[block % 3], block, m, std::min<int64_t>(32, tile.m_end - m));
    }
  }
  adder.add<kPanels>(32);
}

}  // namespace

void matmul_tile_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  configure_tiles();
  if (tile.panel_count == 2) {
    run<2>(f, a, tile);
  } else {
    run<1>(f, a, tile);
  }
  _tile_release();
}
#include "../../isa/end.h"
