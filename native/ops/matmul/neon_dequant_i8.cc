// matmul by integer products at level neon: products of bytes in int16, smull and smlal, as many added there
// as fit, then pairs to int32.
//
// Vector instructions that compute, for a chunk of 16 x 32 weights and one row of a: q4_0 131 (64 products,
// 32 to unpack, 16 to widen and add up, 7 broadcasts of activations, 12 of floats), u2_g128 163, q8_0 188.
// Each of two rows: 117, 133, 173. With four, registers for the broadcasts run out (70 spills a row): two it
// is.
#include <cstring>
#include <type_traits>
#include <utility>

#include "../../base/float16.h"
#include "dequant_i8.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../../isa/neon_begin.h"

#include "neon_lanes.inl"

namespace {

constexpr int kMostRows = 2;
constexpr bool kSigned = true;

// kTogether: products that int16 holds. The first two sums are then pairs of neighbours of that many.
template <int kRows, int kTogether>
struct Products {
  template <int kParts, int quarter>
  static inline __attribute__((always_inline)) void add(const uint8x16_t (&values)[8], const int8_t* codes,
                                                        int64_t stride, Ints (&products)[kRows][kParts]) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      int16x8_t low{}, high{};
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) {
        const int8x16_t a =
            vreinterpretq_s8_s32(vld1q_dup_s32(reinterpret_cast<const int32_t*>(codes + r * stride + 4 * v)));
        const int8x16_t b = vreinterpretq_s8_u8(values[v]);
        const bool first = v % kTogether == 0;
        low =
            first ? vmull_s8(vget_low_s8(b), vget_low_s8(a)) : vmlal_s8(low, vget_low_s8(b), vget_low_s8(a));
        high = first ? vmull_high_s8(b, a) : vmlal_high_s8(high, b, a);
        if (v % kTogether != kTogether - 1) continue;
        int32x4_t& sum = products[r][v / (8 / kParts)].q[quarter];
        sum = vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
      }
    }
  }
};

}  // namespace

#include "neon_dequant_i8.inl"

#include "dequant_i8.inl"

#include "dequant_i8_families.inl"

#include "../../isa/end.h"
#endif  // __aarch64__
