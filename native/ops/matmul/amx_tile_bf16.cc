// Algorithm tile on AMX in bf16: as amx_tile_i8.cc, with tiles of 16 columns x 32 weights, two to a row of 4
// bytes.
//
// A block is 256 deep, so that its two panels of tiles take 16 KB again; a chunk of 32 weights is a tile.
// Weights go through f32: per 64 of them some 6 instructions to values (decode.inl), 4 multiplications, 2
// conversions of two vectors to bf16 and 2 vpermw that bring pairs together. Tile products and vcvtne2ps2bf16
// take numbers below 2^-126 for zero.
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
#include "amx_tiles.inl"

namespace {

constexpr int64_t kDepth = 256;

struct Memory {
  alignas(64) uint8_t weights[2][2 * 32 * kDepth];  // [parity][steps][2][16][64]
  alignas(64) float sums[2][32 * 32];               // [parity][32][32]
};
static_assert(sizeof(Memory) <= size_t{1} << 17);

// Adds sums [32][32] of a block to c, a row at a time.
struct Adder {
  int64_t left = 0;  // rows
  const float* sums = nullptr;
  float* out = nullptr;
  __mmask16 before = 0, second = 0;  // what stands in c already; the second panel
  int64_t stride = 0;

  inline __attribute__((always_inline)) void row() {
    if (left <= 0) return;
    --left;
    const __m512 low = _mm512_add_ps(_mm512_load_ps(sums), _mm512_maskz_loadu_ps(before, out));
    const __m512 high =
        _mm512_add_ps(_mm512_load_ps(sums + 16), _mm512_maskz_loadu_ps(before & second, out + 16));
    _mm512_storeu_ps(out, low);
    _mm512_mask_storeu_ps(out + 16, second, high);
    sums += 32;
    out += stride;
  }
};

// The chunks of a block of two panels, panel by panel, half a chunk at a time.
template <Adjust kAdjust, typename Decoder>
struct Unpacker {
  const PanelFormat& f;
  const Decoder& decoder;
  const uint8_t* panels[2];
  int64_t per_block;  // chunks of a panel block
  int segment;

  uint8_t* tiles = nullptr;
  int64_t first = 0, count = 0,
          left = 0;  // chunks: the block's first, of a panel; half chunks of both that are left
  int64_t block_index = 0, in_block = 0, index = 0, panel = 0;
  alignas(64) float scales[4 * kPanelRows] = {}, offsets[4 * kPanelRows] = {};

  void start(int64_t begin, int64_t stride, uint8_t* tiles_) {
    tiles = tiles_;
    first = begin / kChunk;
    const int64_t chunks = std::min(stride - begin, kDepth) / kChunk;
    count = std::min(f.blocks * per_block - first, chunks);
    // Where a panel ends before the padded rows of a: no number there may be infinite.
    if (count < chunks) std::memset(tiles + count * 2048, 0, static_cast<size_t>((chunks - count) * 2048));
    left = 4 * count;
    panel = 0;
    start_panel();
  }
  bool second_half() const { return left % 2 != 0; }
  const uint8_t* block() const { return panels[panel] + block_index * f.block_bytes; }
  // Before the quarters of a half chunk.
  void begin() {
    if (second_half()) return;
    load_groups(f, block(), f.value_kind == ValueKind::floats ? 0 : group_of(f, in_block),
                f.group < kChunk ? kChunk / f.group : 1, scales, offsets);
    const char* codes = reinterpret_cast<const char*>(f.chunk(block(), in_block));
    for (int64_t i = 0; i < f.chunk_bytes; i += 64) _mm_prefetch(codes + 2048 + i, _MM_HINT_T0);
  }
  // Weights 4v to 4v + 3 of sixteen rows to tile rows 2v and 2v + 1.
  template <int v>
  inline __attribute__((always_inline)) void four() const {
    const typename Decoder::Chunk chunk(f.chunk(block(), in_block), 0);
    Vec w[4];
    adjusted_four<kAdjust>(decoder, chunk, v, segment, scales, offsets, 0, w);
    if (kAdjust != Adjust::min && f.value_kind != ValueKind::floats) {
      const Vec scale = Vec::load(scales + (4 * v >> segment) * kPanelRows);
      for (int j = 0; j < 4; ++j) w[j] = scale * w[j];
    }
    const __m512i pairs = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512i* rows = reinterpret_cast<__m512i*>(tiles + (index * 2 + panel) * 1024) + 2 * v;
    for (int i = 0; i < 2; ++i) {
      const __m512bh both = _mm512_cvtne2ps_pbh(w[2 * i + 1].v, w[2 * i].v);
      _mm512_store_si512(rows + i, _mm512_permutexvar_epi16(pairs, reinterpret_cast<__m512i>(both)));
    }
  }
  template <int q>
  inline __attribute__((always_inline)) void quarter() const {
    if (second_half()) {
      four<q + 4>();
    } else {
      four<q>();
    }
  }
  void next() {
    if (--left % 2 != 0) return;
    ++index;
    if (++in_block == per_block) {
      in_block = 0;
      ++block_index;
    }
    if (index == count && left > 0) {
      panel = 1;
      start_panel();
    }
  }
  __attribute__((noinline)) void half_chunks(int64_t n) {
    for (; n > 0 && left > 0; --n) {
      begin();
      quarter<0>();
      quarter<1>();
      quarter<2>();
      quarter<3>();
      next();
    }
  }

 private:
  void start_panel() {
    index = 0;
    block_index = first / per_block;
    in_block = first % per_block;
  }
};

template <Adjust kAdjust, typename Decoder>
void run(const PanelFormat& f, const Decoder& decoder, const Activations& a, const Tile& tile) {
  Memory& memory = *reinterpret_cast<Memory*>(tile.scratch);
  const uint8_t* second_panel = tile.panels + (tile.panel_count - 1) * tile.panel_stride;
  Unpacker<kAdjust, Decoder> unpacker{
      f, decoder, {tile.panels, second_panel}, f.elements / kChunk, segment_log2(f)};
  Adder adder;
  adder.stride = tile.stride;
  adder.second = tile.panel_count == 2 ? 0xffff : 0;
  const int64_t row_blocks = (tile.m_end - tile.m_begin + 31) / 32;
  unpacker.start(0, a.stride, memory.weights[0]);
  unpacker.half_chunks(unpacker.left);
  int parity = 0, block_parity = 0;
  for (int64_t begin = 0; begin < a.stride; begin += kDepth, block_parity ^= 1) {
    const int64_t steps = std::min(kDepth, a.stride - begin) / 32;
    const uint8_t* weights = memory.weights[block_parity];
    int64_t pace = 0, due = 0;  // half chunks per 2^16 steps
    if (begin + kDepth < a.stride) {
      unpacker.start(begin + kDepth, a.stride, memory.weights[block_parity ^ 1]);
      pace = ((unpacker.left << 16) + row_blocks * steps - 1) / (row_blocks * steps);
    }
    const auto tiles_of = [&](int64_t m) {
      const uint8_t* rows = reinterpret_cast<const uint8_t*>(a.halves + m * a.stride + begin * 16);
      return StepTiles{rows, tile.m_end - m > 16 ? rows + 32 * a.stride : rows, weights};
    };
    __asm__ volatile("" : : : "memory");  // tile loads read what vectors stored
    load_step(tiles_of(tile.m_begin));
    for (int64_t m = tile.m_begin; m < tile.m_end; m += 32, parity ^= 1) {
      zero_sums();
      StepTiles next = tiles_of(m);
      for (int64_t step = 0; step < steps; ++step) {
        next = {next.first + 1024, next.second + 1024, next.weights + 2048};
        if (step + 1 == steps) next = tiles_of(m + 32 < tile.m_end ? m + 32 : m);
        due += pace;
        const bool unpack = due >= 65536 && unpacker.left > 0, add = step > 0;
        if (unpack) unpacker.begin();
        multiply_bf16(next, [&]<int q>() __attribute__((always_inline)) {
          if (unpack) unpacker.template quarter<q>();
          if (add) adder.row();
        });
        if (!unpack) continue;
        unpacker.next();
        unpacker.half_chunks(due / 65536 - 1);
        due %= 65536;
      }
      while (adder.left > 0) adder.row();
      store_sums(memory.sums[parity]);
      adder.left = std::min<int64_t>(32, tile.m_end - m);
      adder.sums = memory.sums[parity];
      adder.out = tile.values + (m - tile.m_begin) * tile.stride;
      adder.before = begin > 0 || tile.accumulate ? 0xffff : 0;
    }
    unpacker.half_chunks(unpacker.left);
  }
  while (adder.left > 0) adder.row();
}

}  // namespace

void matmul_tile_bf16(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const TileScope tiles;
  with_decoder(f, [&](const auto& decoder) {
    using Decoder = std::decay_t<decltype(decoder)>;
    with_adjust<Decoder>(f, [&](auto adjust) { run<adjust(), Decoder>(f, decoder, a, tile); });
  });
}
#include "../../isa/end.h"
#endif  // __x86_64__
