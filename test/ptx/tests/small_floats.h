// A second, slow implementation of the small floating-point formats, by search in the list of their values.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "rows.h"

namespace bitloom::ptx::testing {

// All non-negative finite values of a format, rising: value i has bit pattern i.
class SmallFormat {
 public:
  SmallFormat(int exponent_bits, int mantissa_bits, uint32_t max_finite, uint64_t nan, uint64_t infinity)
      : nan(nan), infinity(infinity), sign(1ull << (exponent_bits + mantissa_bits)) {
    const int bias = (1 << (exponent_bits - 1)) - 1;
    for (uint32_t i = 0; i <= max_finite; ++i) {
      const int exponent = static_cast<int>(i >> mantissa_bits);
      const double fraction = static_cast<double>(i & ((1u << mantissa_bits) - 1)) / (1u << mantissa_bits);
      values.push_back(exponent == 0 ? fraction * std::pow(2.0, 1 - bias)
                                     : (1 + fraction) * std::pow(2.0, exponent - bias));
    }
    // What would come next decides where rounding overflows.
    values.push_back(values.back() + (values.back() - values[values.size() - 2]));
  }
  // Nearest, ties to the even pattern. Saturating: overflow gives the largest finite value.
  uint64_t nearest(long double value, bool saturate = false) const {
    if (std::isnan(value)) return nan;
    const uint64_t s = std::signbit(value) ? sign : 0;
    const long double x = std::fabs(value);
    const uint64_t top = saturate ? values.size() - 2 : infinity;
    if (x >= values.back()) return s | top;
    const size_t above =
        static_cast<size_t>(std::upper_bound(values.begin(), values.end(), x) - values.begin());
    const size_t below = above - 1;
    const long double down = x - values[below], up = values[above] - x;
    const size_t best = down < up ? below : up < down ? above : below % 2 == 0 ? below : above;
    return s | (best == values.size() - 1 ? top : best);
  }
  // Towards zero.
  uint64_t truncated(long double value, bool saturate = false) const {
    if (std::isnan(value)) return nan;
    const uint64_t s = std::signbit(value) ? sign : 0;
    if (std::isinf(value)) return s | (saturate ? values.size() - 2 : infinity);
    const long double x = std::fabs(value);
    if (x >= values.back()) return s | (values.size() - 2);
    const size_t below =
        static_cast<size_t>(std::upper_bound(values.begin(), values.end(), x) - values.begin()) - 1;
    return s | std::min(below, values.size() - 2);
  }
  double value(uint64_t bits) const {
    const uint64_t magnitude = bits & (sign - 1);
    const double v = magnitude < values.size() - 1              ? values[magnitude]
                     : magnitude == infinity && infinity != nan ? HUGE_VAL
                                                                : std::nan("");
    return bits & sign ? -v : v;
  }
  std::vector<double> values;
  const uint64_t nan, infinity, sign;
};

inline const SmallFormat& f16_format() {
  static const SmallFormat f(5, 10, 0x7bff, 0x7fff, 0x7c00);
  return f;
}
inline const SmallFormat& bf16_format() {
  static const SmallFormat f(8, 7, 0x7f7f, 0x7fff, 0x7f80);
  return f;
}
inline const SmallFormat& e4m3_format() {
  static const SmallFormat f(4, 3, 0x7e, 0x7f, 0x7f);
  return f;
}
inline const SmallFormat& e5m2_format() {
  static const SmallFormat f(5, 2, 0x7b, 0x7f, 0x7c);
  return f;
}

inline Values half_values(uint64_t seed, uint32_t random_count) {
  Values values = {0,      0x8000, 0x3c00, 0xbc00, 1,      0x8001, 0x03ff, 0x0400, 0x7bff,
                   0xfbff, 0x7c00, 0xfc00, 0x7e00, 0x3555, 0x4248, 0x3c01, 0x6400};
  Random random(seed);
  for (uint32_t i = 0; i < random_count; ++i) values.push_back(random.next() & 0xffff);
  return values;
}
inline Values float_values(uint64_t seed, uint32_t random_count) {
  Values values = {0,          0x80000000, 0x3f800000, 0xbf800000, 1,          0x80000001, 0x007fffff,
                   0x00800000, 0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0x3eaaaaab,
                   0x40490fdb, 0x3f800001, 0x4b800000, 0x477fe000, 0x477ff000, 0x33000000, 0x33000001,
                   0x38800000, 0x3f000000, 0x40200000, 0xc0200000, 0x4f000000, 0xcf000000, 0x5f000000,
                   0x43e00000, 0x43e80000, 0x47600000};
  Random random(seed);
  for (uint32_t i = 0; i < random_count; ++i) {
    values.push_back(i % 2 ? random.next() & 0xffffffff
                           : bits_of(random.uniform() * static_cast<float>(1 << random.next() % 20)));
  }
  return values;
}
inline Values double_values(uint64_t seed, uint32_t random_count) {
  Values values;
  for (uint64_t bits : float_values(seed, random_count))
    values.push_back(bits_of(static_cast<double>(as_f32(bits))));
  Random random(seed);
  for (uint32_t i = 0; i < random_count; ++i) values.push_back(random.next());
  return values;
}

}  // namespace bitloom::ptx::testing
