// matmul by integer products at level i8mm: usmmla multiplies two rows of weights, 8 deep, by two rows of a,
// 32 products an instruction where sdot has 16. One row of a: usdot, which like usmmla takes values of 0 to
// 255 as they are.
//
// Vector instructions that compute, for a chunk of 16 x 32 weights and one row of a: q4_0 77 (32 products, 32
// to unpack, 12 of floats, a broadcast), u2_g128 109, q8_0 45. Each of four rows: 48 (16 products, 8 to
// unpack, 8 to pair rows of weights, 4 to part sums, 12 of floats), 56, 40, beside 20 loads and stores of
// sums.
#include <cstring>
#include <type_traits>
#include <utility>

#include "../../base/float16.h"
#include "dequant_i8.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../../isa/i8mm_begin.h"

#include "neon_lanes.inl"

namespace {

constexpr int kMostRows = 4;
constexpr bool kSigned = false;

// Rows 2i and 2i + 1 of vectors v and v + 1, by eights.
inline uint8x16_t pair_low(uint8x16_t first, uint8x16_t second) {
  return vreinterpretq_u8_u32(vzip1q_u32(vreinterpretq_u32_u8(first), vreinterpretq_u32_u8(second)));
}
inline uint8x16_t pair_high(uint8x16_t first, uint8x16_t second) {
  return vreinterpretq_u8_u32(vzip2q_u32(vreinterpretq_u32_u8(first), vreinterpretq_u32_u8(second)));
}

template <int kRows, int kTogether>
struct Products {
  // Two rows of a at a time: sums of [weights' row][row of a] in registers of 2 x 2.
  template <int kParts, int quarter>
  static inline __attribute__((always_inline)) void add(const uint8x16_t (&values)[8], const int8_t* codes,
                                                        int64_t stride, Ints (&products)[kRows][kParts]) {
    constexpr int kEights = 4 / kParts;  // of a part
    uint8x16_t low[4], high[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      low[i] = pair_low(values[2 * i], values[2 * i + 1]);
      high[i] = pair_high(values[2 * i], values[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; r += 2) {
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) {
        int32x4_t& first = products[r][p].q[quarter];
        int32x4_t& second = products[r + 1][p].q[quarter];
        int32x4_t low_sums = vzip1q_s32(first, second), high_sums = vzip2q_s32(first, second);
#pragma GCC unroll 4
        for (int i = kEights * p; i < kEights * (p + 1); ++i) {
          const int8x16_t a =
              vcombine_s8(vld1_s8(codes + r * stride + 8 * i), vld1_s8(codes + (r + 1) * stride + 8 * i));
          low_sums = vusmmlaq_s32(low_sums, low[i], a);
          high_sums = vusmmlaq_s32(high_sums, high[i], a);
        }
        first = vuzp1q_s32(low_sums, high_sums);
        second = vuzp2q_s32(low_sums, high_sums);
      }
    }
  }
};

template <int kTogether>
struct Products<1, kTogether> {
  template <int kParts, int quarter>
  static inline __attribute__((always_inline)) void add(const uint8x16_t (&values)[8], const int8_t* codes,
                                                        int64_t, Ints (&products)[1][kParts]) {
    constexpr int kPart = 8 / kParts;
    const int8x16_t first = vld1q_s8(codes), second = vld1q_s8(codes + 16);
    const auto sum = [&](int v) -> int32x4_t& { return products[0][v / kPart].q[quarter]; };
    sum(0) = vusdotq_laneq_s32(sum(0), values[0], first, 0);
    sum(1) = vusdotq_laneq_s32(sum(1), values[1], first, 1);
    sum(2) = vusdotq_laneq_s32(sum(2), values[2], first, 2);
    sum(3) = vusdotq_laneq_s32(sum(3), values[3], first, 3);
    sum(4) = vusdotq_laneq_s32(sum(4), values[4], second, 0);
    sum(5) = vusdotq_laneq_s32(sum(5), values[5], second, 1);
    sum(6) = vusdotq_laneq_s32(sum(6), values[6], second, 2);
    sum(7) = vusdotq_laneq_s32(sum(7), values[7], second, 3);
  }
};

}  // namespace

#include "neon_dequant_i8.inl"

#include "dequant_i8.inl"

#include "dequant_i8_families.inl"

#include "../../isa/end.h"
#endif  // __aarch64__
