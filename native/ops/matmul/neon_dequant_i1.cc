// Compute i1 at level neon: signs times signs by XOR and cnt, which counts the bits of bytes; see
// avx512_dequant_i1.cc. A chunk is four vectors, byte r of the j-th of weights j, j + 4, ... of row r.
//
// Per chunk and row of a: 4 loads, 4 XORs, 4 ands, 4 counts, 4 additions.
#include <cstdint>

#include "kernel.h"
#include "signs.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../../isa/neon_begin.h"

#include "neon_lanes.inl"

namespace {

// Mismatches of seven chunks, 32 of a row each, stay below 256.
constexpr int64_t kBytesChunks = 7;

inline uint8x16_t count_chunk(const uint8_t* codes, uint32_t signs, uint32_t valid, uint8x16_t counts) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const uint8x16_t sign = vdupq_n_u8(static_cast<uint8_t>(signs >> (8 * j)));
    const uint8x16_t mask = vdupq_n_u8(static_cast<uint8_t>(valid >> (8 * j)));
    counts = vaddq_u8(counts, vcntq_u8(vandq_u8(veorq_u8(vld1q_u8(codes + 16 * j), sign), mask)));
  }
  return counts;
}

inline Ints mismatches(const SignGroup& group) {
  Ints totals = ints_set(0);
  for (int64_t begin = 0; begin < group.chunks; begin += kBytesChunks) {
    const int64_t end = begin + kBytesChunks < group.chunks ? begin + kBytesChunks : group.chunks;
    uint8x16_t bytes = vdupq_n_u8(0);
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const uint32_t valid = chunk + 1 == group.chunks ? group.last : ~0u;
      bytes = count_chunk(group.codes + 64 * chunk, group.signs[chunk], valid, bytes);
    }
    const Halves halves = halves_of(vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
    for (int i = 0; i < 4; ++i) totals.q[i] = vaddw_s16(totals.q[i], vreinterpret_s16_u16(halves.q[i]));
  }
  return totals;
}

void row_i1(const PanelFormat& f, const Activations& a, const uint8_t* panel, int64_t m, bool accumulate,
            float* out) {
  const uint32_t* signs = a.signs + m * a.stride / kChunk;
  Lanes sum = accumulate ? lanes_load(out) : lanes_set(0);
  for (int64_t k = 0; k < f.cols; k += f.group) {
    const SignGroup group = sign_group(f, panel, signs, k);
    Ints integers = mismatches(group);
    const int32x4_t count = vdupq_n_s32(static_cast<int32_t>(group.count));
    for (int i = 0; i < 4; ++i) integers.q[i] = vsubq_s32(count, vshlq_n_s32(integers.q[i], 1));
    const Lanes scales = lanes_mul(lanes_of_stored(f.scale_type, group.scales), lanes_set(f.scale_factor));
    sum = lanes_fma(lanes_of_ints(integers), lanes_mul(scales, lanes_set(a.scales[m])), sum);
  }
  lanes_store(out, sum);
}

}  // namespace

void matmul_dequant_i1(const PanelFormat& f, const Activations& a, const Tile& tile) {
  for (int64_t p = 0; p < tile.panel_count; ++p) {
    for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
      row_i1(f, a, tile.panels + p * tile.panel_stride, m, tile.accumulate,
             tile.values + (m - tile.m_begin) * tile.stride + p * kPanelRows);
    }
  }
}

#include "../../isa/end.h"
#endif  // __aarch64__
