// matmul by integer products at level dotprod: sdot adds four products of bytes to an int32, which is what a
// panel's dwords are laid out for; its form by element takes the activations of a vector from a register
// of 16.
//
// Vector instructions that compute, for a chunk of 16 x 32 weights and one row of a: q4_0 77 (32 products, 32
// to unpack, 12 of floats, a broadcast), u2_g128 109, q8_0 86 (32 flips of the sign bit). Each of four rows:
// 53, 61, 62, beside some 20 loads and stores of sums that do not fit the registers.
#include <cstring>
#include <type_traits>
#include <utility>

#include "../../base/float16.h"
#include "dequant_i8.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../../isa/dotprod_begin.h"

#include "neon_lanes.inl"

namespace {

constexpr int kMostRows = 4;
constexpr bool kSigned = true;

template <int kRows, int kTogether>
struct Products {
  template <int kParts, int quarter>
  static inline __attribute__((always_inline)) void add(const uint8x16_t (&values)[8], const int8_t* codes,
                                                        int64_t stride, Ints (&products)[kRows][kParts]) {
    constexpr int kPart = 8 / kParts;
    int8x16_t b[8];
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) b[v] = vreinterpretq_s8_u8(values[v]);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const int8x16_t first = vld1q_s8(codes + r * stride), second = vld1q_s8(codes + r * stride + 16);
      const auto sum = [&](int v) -> int32x4_t& { return products[r][v / kPart].q[quarter]; };
      sum(0) = vdotq_laneq_s32(sum(0), b[0], first, 0);
      sum(1) = vdotq_laneq_s32(sum(1), b[1], first, 1);
      sum(2) = vdotq_laneq_s32(sum(2), b[2], first, 2);
      sum(3) = vdotq_laneq_s32(sum(3), b[3], first, 3);
      sum(4) = vdotq_laneq_s32(sum(4), b[4], second, 0);
      sum(5) = vdotq_laneq_s32(sum(5), b[5], second, 1);
      sum(6) = vdotq_laneq_s32(sum(6), b[6], second, 2);
      sum(7) = vdotq_laneq_s32(sum(7), b[7], second, 3);
    }
  }
};

}  // namespace

#include "neon_dequant_i8.inl"

#include "dequant_i8.inl"

#include "dequant_i8_families.inl"

#include "../../isa/end.h"
#endif  // __aarch64__
