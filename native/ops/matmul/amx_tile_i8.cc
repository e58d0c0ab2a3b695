// Algorithm tile on AMX: int8 tiles of weights, unpacked between the tile products of the block before.
//
// A unit is 32 columns of b and up to 256 rows of a. Its weights are unpacked 512 deep into two panels of
// tiles (16 KB, which stay in L1); rows of a pass over them in blocks of 32 (16 KB of tiles, from L2) with 2
// x 2 tiles of sums. A step of 64 is 4 tile products of 16 cycles. Behind them stand shares of the next
// block's unpacking, and four rows of c that take the sums of the rows before: amx_tiles.inl says in what
// order.
//
// Measured for 1024 weights of q4_0, in cycles, the unit in its fast state: at 256 rows products and loads
// alone take 270, with stores of their sums 300; unpacking one after the other with the products adds 160 (30
// of it the scales; ports alone would allow 76 and 12), adding the sums to c 150 (ports 48; with c always in
// L1 still 135); all together, interleaved as here, 610 to 660. At 32 rows the products take 34, all together
// 210. In the slow state products alone take 1050, all together 1350 to 1500. Why the parts take twice what
// ports allow is not known.
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

// What is unpacked behind the four products of a step: nothing, half a chunk, a chunk, a chunk behind each.
enum class Share { none, first_half, second_half, chunk, chunks };

// Rows of a block's sums that are yet to be added to c. One index moves, so that the rest stays where it is.
struct Sums {
  const int32_t* sums = nullptr;                      // [32][32]
  const float *scales = nullptr, *moments = nullptr;  // of a's rows, `blocks` apart
  float* out = nullptr;
  const PanelSteps* steps = nullptr;  // [2]
  int64_t row = 0, end = 0, blocks, stride;
  __mmask16 before = 0, second;  // what stands in c already; whether there is a second panel
  bool has_offsets;              // the format is exact and has offsets

  // Loads first (amx_tiles.inl). Inlined by force: a call here would clear the vector registers of the
  // unpacking.
  template <int kRows>
  inline __attribute__((always_inline)) void add() {
    [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
      const int32_t* from = sums + 32 * row;
      float* to = out + row * stride;
      const float* scale = scales + row * blocks;
      const __m512 step0 = _mm512_load_ps(steps[0].step), step1 = _mm512_load_ps(steps[1].step);
      const __m512 both[2 * kRows] = {_mm512_mul_ps(step0, _mm512_set1_ps(scale[i * blocks]))...,
                                      _mm512_mul_ps(step1, _mm512_set1_ps(scale[i * blocks]))...};
      __m512 c[2 * kRows] = {_mm512_maskz_loadu_ps(before, to + i * stride)...,
                             _mm512_maskz_loadu_ps(before & second, to + i * stride + 16)...};
      ((c[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(from + 32 * i)), both[i], c[i])), ...);
      ((c[kRows + i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(from + 32 * i + 16)),
                                       both[kRows + i], c[kRows + i])),
       ...);
      if (has_offsets) {
        const float* moment = moments + row * blocks;
        const __m512 offset0 = _mm512_load_ps(steps[0].offset), offset1 = _mm512_load_ps(steps[1].offset);
        ((c[i] = _mm512_fmadd_ps(offset0, _mm512_set1_ps(moment[i * blocks]), c[i])), ...);
        ((c[kRows + i] = _mm512_fmadd_ps(offset1, _mm512_set1_ps(moment[i * blocks]), c[kRows + i])), ...);
      }
      (_mm512_storeu_ps(to + i * stride, c[i]), ...);
      (_mm512_mask_storeu_ps(to + i * stride + 16, second, c[kRows + i]), ...);
      (_mm_prefetch(reinterpret_cast<const char*>(to + (kRows + i) * stride), _MM_HINT_T0), ...);
      (_mm_prefetch(reinterpret_cast<const char*>(to + (kRows + i) * stride + 16), _MM_HINT_T0), ...);
    }(std::make_integer_sequence<int, kRows>());
    row += kRows;
  }
  inline __attribute__((always_inline)) void add_rest() {
    while (row + 4 <= end) add<4>();
    while (row < end) add<1>();
  }
};

template <int kBits, Map kMap, int kParts>
void run(const PanelFormat& f, const TileRecipe& r, const Activations& a, const Tile& tile) {
  Memory& memory = *reinterpret_cast<Memory*>(tile.scratch);
  write_table(f, r, false, memory.table);
  using Unpacker = ChunkUnpacker<kBits, kMap, kParts>;
  Unpacker unpacker(memory.table);
  ChunkCursor cursor(f, r, tile);
  const ScalesReader scales(f, r, 64);
  const int64_t blocks = tile_blocks(a.stride), end = tile.m_end;
  Sums sums;
  sums.blocks = blocks;
  sums.stride = tile.stride;
  sums.second = tile.panel_count == 2 ? 0xffff : 0;
  sums.has_offsets = r.exact && r.has_offsets;
  const int64_t row_blocks = (end - tile.m_begin + 31) / 32;
  bool single = false;  // sixteen rows of a, not 32

  const auto unpack_one = [&]() __attribute__((always_inline)) {
    if (cursor.left == 0) return;
    unpacker.begin(cursor.chunk, cursor.m, cursor.h);
    cursor.template prefetch<kBits>();
    unpacker.template quarter<0>(cursor.out);
    unpacker.template quarter<1>(cursor.out);
    unpacker.template quarter<2>(cursor.out);
    unpacker.template quarter<3>(cursor.out);
    cursor.next();
  };
  // Multiplies the loaded step and loads the next one.
  const auto multiply = [&]<Share kShare>(const StepTiles& next, bool add) __attribute__((always_inline)) {
    const auto gap = [&]<int q>() __attribute__((always_inline)) {
      if constexpr (kShare == Share::chunks) unpack_one();
      if constexpr (kShare == Share::chunk) unpacker.template quarter<q>(cursor.out);
      if constexpr (kShare == Share::first_half && q % 2 == 1) unpacker.template quarter<q / 2>(cursor.out);
      if constexpr (kShare == Share::second_half && q % 2 == 1)
        unpacker.template quarter<2 + q / 2>(cursor.out);
    };
    _tile_dpbssd(0, 4, 6);
    if (add) sums.template add<4>();
    if constexpr (kShare != Share::none && kShare != Share::chunks) {
      unpacker.begin(cursor.chunk, cursor.m, cursor.h);
      if constexpr (kShare != Share::second_half) cursor.template prefetch<kBits>();
    }
    gap.template operator()<0>();
    _tile_dpbssd(1, 4, 7);
    gap.template operator()<1>();
    _tile_stream_loadd(4, next.first, 64);
    if (!single) _tile_dpbssd(2, 5, 6);
    gap.template operator()<2>();
    _tile_loadd(6, next.weights, 64);
    if (!single) _tile_dpbssd(3, 5, 7);
    gap.template operator()<3>();
    if (!single) _tile_stream_loadd(5, next.second, 64);
    _tile_loadd(7, next.weights + 1024, 64);
    if constexpr (kShare == Share::chunk || kShare == Share::second_half) cursor.next();
  };

  read_scales(scales, cursor, 0, memory.scales, memory.steps[0]);
  cursor.start(0, a.stride, memory.scales, memory.weights[0]);
  cursor = unpack_chunks<Unpacker>(cursor, memory.table, cursor.left);
  int parity = 0;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t steps = std::min(kTileDepth, a.stride - block * kTileDepth) / kStep;
    const uint8_t* weights = memory.weights[block % 2];
    int64_t pace = 0, due = 0;  // half chunks per 2^16 steps
    bool half = false;
    if (block + 1 < blocks) {
      read_scales(scales, cursor, (block + 1) * kTileDepth, memory.scales, memory.steps[(block + 1) % 3]);
      cursor.start((block + 1) * kTileDepth, a.stride, memory.scales, memory.weights[(block + 1) % 2]);
      pace = ((cursor.left << 17) + row_blocks * steps - 1) / (row_blocks * steps);
    }
    // Tiles of the rows from m on.
    const auto tiles_of = [&](int64_t m) {
      const uint8_t* rows =
          reinterpret_cast<const uint8_t*>(a.codes) + m * a.stride + block * kTileDepth * 16;
      return StepTiles{rows, end - m > 16 ? rows + 16 * a.stride : rows, weights};
    };
    __asm__ volatile("" : : : "memory");  // tile loads read what vectors stored
    load_step(tiles_of(tile.m_begin));
    for (int64_t m = tile.m_begin; m < end; m += 32, parity ^= 1) {
      zero_sums();
      single = end - m <= 16;
      StepTiles next = tiles_of(m);
      for (int64_t step = 0; step < steps; ++step) {
        next.first += 1024;
        next.second += 1024;
        next.weights += 2048;
        if (step + 1 == steps) next = tiles_of(m + 32 < end ? m + 32 : m);
        due += pace;
        // Sums of the rows before were stored a moment ago: a step later they can be read without waiting.
        const bool add = step > 0 && sums.row + 4 <= sums.end;
        if (due < 65536 || cursor.left == 0) {
          multiply.template operator()<Share::none>(next, add);
        } else if (half) {
          multiply.template operator()<Share::second_half>(next, add);
          half = false;
          due -= 65536;
        } else if (due < 131072) {
          multiply.template operator()<Share::first_half>(next, add);
          half = true;
          due -= 65536;
        } else if (due < 3 * 65536) {
          multiply.template operator()<Share::chunk>(next, add);
          due -= 131072;
        } else {
          multiply.template operator()<Share::chunks>(next, add);
          due -= 8 * 65536;
        }
      }
      sums.add_rest();
      store_sums(memory.sums[parity]);
      sums.row = 0;
      sums.end = std::min<int64_t>(32, end - m);
      sums.sums = memory.sums[parity];
      sums.scales = a.scales + m * blocks + block;
      sums.moments = a.moments + m * blocks + block;
      sums.out = tile.values + (m - tile.m_begin) * tile.stride;
      sums.before = block > 0 || tile.accumulate ? 0xffff : 0;
      sums.steps = memory.steps[block % 3];
    }
    if (cursor.left > 0) cursor = unpack_chunks<Unpacker>(cursor, memory.table, cursor.left);
  }
  sums.add_rest();
}

}  // namespace

void matmul_tile_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const TileRecipe r = tile_recipe(f);
  const TileScope tiles;
  with_unpacker(f, r, [&]<int kBits, Map kMap, int kParts>() { run<kBits, kMap, kParts>(f, r, a, tile); });
}
#include "../../isa/end.h"
#endif  // __x86_64__
