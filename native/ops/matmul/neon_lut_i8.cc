// matmul by tables at level neon: tbl looks up one table for the sixteen rows of a panel. Entries come as two
// tables of bytes of which eight lookups can be added as bytes (tables.h), so that a run of 64 bytes is
// widened once. Panels share the tables in registers: four at 1 bit (8 sums of bytes, 4 tables, what unpacks
// the nibbles), two at 2 and 3 bits, whose sums of words wait in registers too.
//
// Vector instructions that compute, for a chunk of 16 x 32 weights and one row of a: 1 bit 60 (16 lookups, 14
// additions of bytes, 8 to unpack nibbles, 4 to widen, 2 shifts, 16 of numbers), 2 bits 102, 3 bits 148;
// loads of tables 4, 16 and 24.
#include "kernel.h"
#include "tables.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../../isa/neon_begin.h"

#include "neon_lanes.inl"

namespace {

constexpr int kMostPanels = 8;
constexpr int kRows = 4;
constexpr int64_t kAhead = 1024;

// Sums of 16-bit words of each panel: rows 0 to 7, then 8 to 15.
template <int kPanels>
struct Words {
  uint16x8_t low[kPanels], high[kPanels];
};

// What the 64 bytes of run `run` of each panel look up, widened: at most 8 * 762.
template <int kPanels>
inline __attribute__((always_inline)) Words<kPanels> look_up_run(const uint8_t* codes, int64_t panel_stride,
                                                                 const uint8_t* tables) {
  uint8x16_t low[kPanels], high[kPanels];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const uint8x16_t first_low = vld1q_u8(tables + 16 * j), first_high = vld1q_u8(tables + 64 + 16 * j);
    const uint8x16_t second_low = vld1q_u8(tables + 128 + 16 * j),
                     second_high = vld1q_u8(tables + 192 + 16 * j);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      const uint8x16_t bytes = vld1q_u8(codes + p * panel_stride + 16 * j);
      const uint8x16_t first = vandq_u8(bytes, vdupq_n_u8(15)), second = vshrq_n_u8(bytes, 4);
      const uint8x16_t low_entry = vqtbl1q_u8(first_low, first), high_entry = vqtbl1q_u8(first_high, first);
      low[p] = j == 0 ? low_entry : vaddq_u8(low[p], low_entry);
      high[p] = j == 0 ? high_entry : vaddq_u8(high[p], high_entry);
      low[p] = vaddq_u8(low[p], vqtbl1q_u8(second_low, second));
      high[p] = vaddq_u8(high[p], vqtbl1q_u8(second_high, second));
    }
  }
  static_assert(kTableHigh == 1 << 5);
  Words<kPanels> words;
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    words.low[p] = vaddw_u8(vshll_n_u8(vget_low_u8(high[p]), 5), vget_low_u8(low[p]));
    words.high[p] = vaddw_high_u8(vshll_high_n_u8(high[p], 5), low[p]);
  }
  return words;
}

// Sums of a chunk: at most 28448 (3 bits), so that words hold them.
template <int kBits, int kPanels>
inline __attribute__((always_inline)) Words<kPanels> look_up(const PanelFormat& f, const uint8_t* codes,
                                                             int64_t panel_stride, const Activations& a,
                                                             int64_t group) {
  constexpr int kMain = kBits == 1 ? 1 : 2;
  const uint8_t* tables = a.tables[kMain - 1] + group * table_bytes(kMain);
  Words<kPanels> words = look_up_run<kPanels>(codes, panel_stride, tables);
  if constexpr (kBits >= 2) {
    const Words<kPanels> more = look_up_run<kPanels>(codes + 64, panel_stride, tables + 256);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      words.low[p] = vaddq_u16(words.low[p], more.low[p]);
      words.high[p] = vaddq_u16(words.high[p], more.high[p]);
    }
  }
  if constexpr (kBits == 3) {
    const Words<kPanels> more =
        look_up_run<kPanels>(codes + 128, panel_stride, a.tables[0] + group * table_bytes(1));
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      words.low[p] = vaddq_u16(words.low[p], vshlq_n_u16(more.low[p], 2));
      words.high[p] = vaddq_u16(words.high[p], vshlq_n_u16(more.high[p], 2));
    }
  }
  if constexpr (kBits == 1) {
    const int16x8_t shift = vdupq_n_s16(static_cast<int16_t>(f.shift));
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      words.low[p] = vshlq_u16(words.low[p], shift);
      words.high[p] = vshlq_u16(words.high[p], shift);
    }
  }
  return words;
}

inline float32x4_t to_floats(uint32x4_t sums) { return vcvtq_f32_s32(vreinterpretq_s32_u32(sums)); }
inline Lanes integers(uint16x8_t low, uint16x8_t high, int32_t start) {
  const uint32x4_t all = vdupq_n_u32(static_cast<uint32_t>(start));
  return {{to_floats(vaddw_u16(all, vget_low_u16(low))), to_floats(vaddw_high_u16(all, low)),
           to_floats(vaddw_u16(all, vget_low_u16(high))), to_floats(vaddw_high_u16(all, high))}};
}

// What is computed of a call, and where it stands: panels [p, p + kPanels) meet chunk after chunk.
struct State {
  Lanes scales[kMostPanels], offsets[kMostPanels];
  Lanes sums[kMostPanels][kRows];
};

template <int kBits, bool kOffsets, int kPanels>
inline void add_chunk(const PanelFormat& f, const Activations& a, const Tile& tile, int64_t chunk, int64_t at,
                      int64_t panel, State* state) {
  const int64_t groups = a.stride / kGroup;
  const uint8_t* codes = tile.panels + panel * tile.panel_stride + at;
#pragma GCC unroll 4
  for (int p = 0; p < kPanels; ++p) {
    for (int i = 0; i < kBits; ++i) __builtin_prefetch(codes + p * tile.panel_stride + 64 * i + kAhead);
  }
  for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
    const int64_t group = m * groups + chunk;
    const Words<kPanels> words = look_up<kBits, kPanels>(f, codes, tile.panel_stride, a, group);
    const int32_t start = lut_start(f, a, group);
    const Lanes scale = lanes_set(a.scales[group]), moment = lanes_set(a.moments[group]);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      Lanes& sum = state->sums[panel + p][m - tile.m_begin];
      sum = lanes_fma(integers(words.low[p], words.high[p], start),
                      lanes_mul(state->scales[panel + p], scale), sum);
      if (kOffsets) sum = lanes_fma(state->offsets[panel + p], moment, sum);
    }
  }
}

template <int kBits, bool kOffsets>
void tile_lut(const PanelFormat& f, const Activations& a, const Tile& tile) {
  constexpr int kTogether = kBits == 1 ? 4 : 2;
  const int64_t block_chunks = f.elements / kChunk, chunks = (f.cols + kChunk - 1) / kChunk;
  const int64_t rows = tile.m_end - tile.m_begin;
  State state;
  for (int64_t p = 0; p < tile.panel_count; ++p) {
    for (int64_t m = 0; m < rows; ++m) {
      state.sums[p][m] =
          tile.accumulate ? lanes_load(tile.values + m * tile.stride + p * kPanelRows) : lanes_set(0);
    }
  }
  int64_t left = 0, at = 0;  // chunks of the block, byte of the panel
  for (int64_t i = 0; i < chunks; ++i, at += 64 * kBits, --left) {
    if (left == 0) {
      const int64_t block = i / block_chunks * f.block_bytes;
      at = block + f.chunk_offset;
      left = block_chunks;
      for (int64_t p = 0; p < tile.panel_count; ++p) {
        const uint8_t* header = tile.panels + p * tile.panel_stride + block;
        const Lanes scale = state.scales[p] = lanes_of_stored(f.scale_type, header);
        if (!kOffsets) continue;
        const Lanes stored = lanes_of_stored(f.scale_type, header + f.offset_offset);
        state.offsets[p] = lanes_mul(lanes_negate(scale), lanes_add(stored, lanes_set(f.zero_shift)));
      }
    }
    int64_t p = 0;
    for (; p + kTogether <= tile.panel_count; p += kTogether) {
      add_chunk<kBits, kOffsets, kTogether>(f, a, tile, i, at, p, &state);
    }
    for (; p < tile.panel_count; ++p) add_chunk<kBits, kOffsets, 1>(f, a, tile, i, at, p, &state);
  }
  for (int64_t p = 0; p < tile.panel_count; ++p) {
    for (int64_t m = 0; m < rows; ++m) {
      lanes_store(tile.values + m * tile.stride + p * kPanelRows, state.sums[p][m]);
    }
  }
}

template <int kBits>
void tile_lut(const PanelFormat& f, const Activations& a, const Tile& tile) {
  f.offset_kind != OffsetKind::none ? tile_lut<kBits, true>(f, a, tile) : tile_lut<kBits, false>(f, a, tile);
}

}  // namespace

void matmul_lut_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  if (f.bits == 1) return tile_lut<1>(f, a, tile);
  if (f.bits == 2) return tile_lut<2>(f, a, tile);
  return tile_lut<3>(f, a, tile);
}

#include "../../isa/end.h"
#endif  // __aarch64__
