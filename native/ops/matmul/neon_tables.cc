// Tables of partial sums at level neon: 16 entries of int16 in two registers, the upper eight from the lower
// by one addition.
#include <utility>

#include "kernel.h"
#include "tables.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../../isa/neon_begin.h"

namespace {

// Entries [0, 8) and [8, 16), at least 0 and below 1024, to their low 5 bits and the rest.
inline void store(int16x8_t first, int16x8_t second, uint8_t* table) {
  const uint8x16_t low =
      vuzp1q_u8(vreinterpretq_u8_s16(first), vreinterpretq_u8_s16(second));  // the bytes that count up to 255
  vst1q_u8(table, vandq_u8(low, vdupq_n_u8(kTableHigh - 1)));
  vst1q_u8(table + 64,
           vshrn_high_n_u16(vshrn_n_u16(vreinterpretq_u16_s16(first), 5), vreinterpretq_u16_s16(second), 5));
}

// The four tables of 1 bit of sixteen codes: table j of codes j, j + 4, j + 8, j + 12.
inline void build_ones(int16x8_t low, int16x8_t high, int16x8_t low_negative, int16x8_t high_negative,
                       uint8_t* tables) {
  alignas(16) static constexpr int16_t kBits[3][8] = {
      {0, 1, 0, 1, 0, 1, 0, 1}, {0, 0, 1, 1, 0, 0, 1, 1}, {0, 0, 0, 0, 1, 1, 1, 1}};
  const int16x8_t bits0 = vld1q_s16(kBits[0]), bits1 = vld1q_s16(kBits[1]), bits2 = vld1q_s16(kBits[2]);
  // Lane j: the negative codes of table j.
  const int16x8_t both = vaddq_s16(low_negative, high_negative);
  const int16x4_t bias = vadd_s16(vget_low_s16(both), vget_high_s16(both));
  const auto table = [&](auto index) __attribute__((always_inline)) {
    constexpr int j = index;
    int16x8_t first = vdupq_lane_s16(bias, j);
    first = vmlaq_laneq_s16(first, bits0, low, j);
    first = vmlaq_laneq_s16(first, bits1, low, j + 4);
    first = vmlaq_laneq_s16(first, bits2, high, j);
    store(first, vaddq_s16(first, vdupq_laneq_s16(high, j + 4)), tables + 16 * j);
  };
  table(std::integral_constant<int, 0>());
  table(std::integral_constant<int, 1>());
  table(std::integral_constant<int, 2>());
  table(std::integral_constant<int, 3>());
}

// The eight tables of 2 bits of sixteen codes: table j of run `run` of codes 4 run + j and 8 more.
inline void build_twos(int16x8_t low, int16x8_t high, int16x8_t low_negative, int16x8_t high_negative,
                       uint8_t* tables) {
  alignas(16) static constexpr int16_t kCodes[2][8] = {{0, 1, 2, 3, 0, 1, 2, 3}, {0, 0, 0, 0, 1, 1, 1, 1}};
  const int16x8_t code = vld1q_s16(kCodes[0]), upper = vld1q_s16(kCodes[1]);
  const int16x8_t both = vaddq_s16(low_negative, high_negative);
  const int16x8_t bias = vaddq_s16(both, vaddq_s16(both, both));
  const auto table = [&](auto index) __attribute__((always_inline)) {
    constexpr int j = index;
    int16x8_t first = vdupq_laneq_s16(bias, j);
    first = vmlaq_laneq_s16(first, code, low, j);
    first = vmlaq_laneq_s16(first, upper, high, j);
    const int16x8_t twice = vdupq_laneq_s16(vaddq_s16(high, high), j);
    store(first, vaddq_s16(first, twice), tables + 256 * (j / 4) + 16 * (j % 4));
  };
  table(std::integral_constant<int, 0>());
  table(std::integral_constant<int, 1>());
  table(std::integral_constant<int, 2>());
  table(std::integral_constant<int, 3>());
  table(std::integral_constant<int, 4>());
  table(std::integral_constant<int, 5>());
  table(std::integral_constant<int, 6>());
  table(std::integral_constant<int, 7>());
}

}  // namespace

void build_tables(const int8_t* codes, int64_t stride, int32_t bits, uint8_t* tables) {
  for (int64_t k = 0; k < stride; k += 16) {
    const int8x16_t a = vld1q_s8(codes + k);
    const int16x8_t low = vmovl_s8(vget_low_s8(a)), high = vmovl_high_s8(a);
    const int16x8_t zero = vdupq_n_s16(0);
    const int16x8_t low_negative = vmaxq_s16(vnegq_s16(low), zero),
                    high_negative = vmaxq_s16(vnegq_s16(high), zero);
    uint8_t* out = tables + k / kGroup * table_bytes(bits) + 128 * (k / 16 % 2);
    (bits == 1 ? build_ones : build_twos)(low, high, low_negative, high_negative, out);
  }
}

void sum_codes(const int8_t* codes, int64_t stride, int32_t* sums, int32_t* negatives) {
  const int8x16_t zero = vdupq_n_s8(0);
  for (int64_t i = 0; i < stride / kGroup; ++i) {
    const int8x16_t first = vld1q_s8(codes + kGroup * i), second = vld1q_s8(codes + kGroup * i + 16);
    sums[i] = vaddlvq_s16(vpadalq_s8(vpaddlq_s8(first), second));
    negatives[i] = -vaddlvq_s16(vpadalq_s8(vpaddlq_s8(vminq_s8(first, zero)), vminq_s8(second, zero)));
  }
}

#include "../../isa/end.h"
#endif  // __aarch64__
