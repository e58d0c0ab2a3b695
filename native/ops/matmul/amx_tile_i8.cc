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

// Adds sums [rows][16 * panels] of a block to c, some rows at a time.
struct Adder {
  const int32_t* sums = nullptr;
  const PanelSteps* steps;
  const float *scales, *moments;  // of a's first row; `blocks` apart
  int64_t blocks, rows, stride;
  float* out;
  bool first, offsets;            // nothing stands in c yet; the format is exact and has offsets

  template <int kPanels>
  void add(int64_t count) {
    if (rows == 0) return;
    if (count > rows) count = rows;
    if (first) {
      add_rows<kPanels, true>(count);
    } else {
      add_rows<kPanels, false>(count);
    }
    if (offsets) add_offsets<kPanels>(count);
    rows -= count;
    sums += 16 * kPanels * count;
    scales += blocks * count;
    moments += blocks * count;
    out += stride * count;
  }

 private:
  template <int kPanels, bool kFirst>
  void add_rows(int64_t count) {
    const __m512 low = _mm512_load_ps(steps[0].step), high = _mm512_load_ps(steps[kPanels - 1].step);
    for (int64_t i = 0; i < count; ++i) {
      const __m512 scale = _mm512_set1_ps(scales[i * blocks]);
      for (int p = 0; p < kPanels; ++p) {
        float* to = out + i * stride + 16 * p;
        const __m512 integer = _mm512_cvtepi32_ps(_mm512_load_si512(sums + (i * kPanels + p) * 16));
        const __m512 both = _mm512_mul_ps(p == 0 ? low : high, scale);
        // fma with 0 and not a product: as the specification, which begins with 0, -0 included.
        _mm512_storeu_ps(to, _mm512_fmadd_ps(integer, both, kFirst ? _mm512_setzero_ps() : _mm512_loadu_ps(to)));
      }
    }
  }
  template <int kPanels>
  void add_offsets(int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const __m512 moment = _mm512_set1_ps(moments[i * blocks]);
      for (int p = 0; p < kPanels; ++p) {
        float* to = out + i * stride + 16 * p;
        _mm512_storeu_ps(to, _mm512_fmadd_ps(_mm512_load_ps(steps[p].offset), moment, _mm512_loadu_ps(to)));
      }
    }
  }
};

template <int kPanels>
void run(const PanelFormat& f, const Activations& a, const Tile& tile) {
  Memory& memory = *reinterpret_cast<Memory*>(tile.scratch);
  const TileRecipe r = tile_recipe(f);
  Unpacker unpacker(f, r, false);
  BlockUnpacker unpack(f, r, unpacker, tile, 128, &memory.scales);
  const int64_t blocks = tile_blocks(a.stride), row_blocks = (tile.m_end - tile.m_begin + 31) / 32;
  Adder adder{};
  adder.blocks = blocks;
  adder.stride = tile.stride;
  adder.offsets = r.exact && r.has_offsets;
  unpack.start(0, a.stride, memory.weights[0], memory.steps[0]);
  while (unpack.piece()) {
  }
  int parity = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t steps = std::min(kTileDepth, a.stride - block * kTileDepth) / kStep;
    const uint8_t* weights = memory.weights[block % 2];
    const int64_t gaps = 4 * row_blocks * steps;
    int64_t pieces = 0, due = gaps / 2;
    if (block + 1 < blocks) {
      unpack.start((block + 1) * kTileDepth, a.stride, memory.weights[(block + 1) % 2], memory.steps[(block + 1) % 3]);
      pieces = unpack.pieces();
    }
    const auto gap = [&] {
      for (due += pieces; due >= gaps; due -= gaps) unpack.piece();
      adder.add<kPanels>(1);
    };
    // Tiles of step `step` of the rows from m on; the second sixteen of rows that are not there are the first again.
    const auto tiles_of = [&](int64_t m, int64_t step) {
      const uint8_t* rows = reinterpret_cast<const uint8_t*>(a.codes) + m * a.stride + (block * kTileDepth + step * kStep) * 16;
      return StepTiles{rows, tile.m_end - m > 16 ? rows + 16 * a.stride : rows, weights + step * 1024 * kPanels};
    };
    __asm__ volatile("" : : : "memory");  // tile loads read what vectors stored
    load_step<kPanels>(tiles_of(tile.m_begin, 0));
    for (int64_t m = tile.m_begin; m < tile.m_end; m += 32, parity ^= 1) {
      zero_sums();
      StepTiles next = tiles_of(m, 1);
      for (int64_t step = 1; step < steps; ++step) {
        multiply_i8<kPanels>(next, gap);
        next.first += 1024;
        next.second += 1024;
        next.weights += 1024 * kPanels;
      }
      multiply_i8<kPanels>(tiles_of(m + 32 < tile.m_end ? m + 32 : m, 0), gap);
      adder.add<kPanels>(32);
      store_sums<kPanels>(memory.sums[parity]);
      adder.sums = memory.sums[parity];
      adder.steps = memory.steps[block % 3];
      adder.scales = a.scales + m * blocks + block;
      adder.moments = a.moments + m * blocks + block;
      adder.rows = std::min<int64_t>(32, tile.m_end - m);
      adder.out = tile.values + (m - tile.m_begin) * tile.stride;
      adder.first = block == 0 && !tile.accumulate;
    }
    while (block + 1 < blocks && unpack.piece()) {
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
