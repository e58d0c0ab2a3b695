#include "elements.h"

#include <limits>

#include "formats.h"

namespace bitloom {
namespace {

// Values of a small float of 1 + kExponent + kMantissa bits, bias 2^(kExponent - 1) - 1, without special
// values: 2^(exponent - bias) * 1.mantissa, or 2^(1 - bias) * 0.mantissa where the exponent is 0.
template <int kExponent, int kMantissa>
struct ElementTable {
  static constexpr int kSize = 1 << (1 + kExponent + kMantissa);
  float values[kSize];

  constexpr ElementTable() : values{} {
    constexpr int kBias = (1 << (kExponent - 1)) - 1;
    for (int code = 0; code < kSize; ++code) {
      const int exponent = code >> kMantissa & ((1 << kExponent) - 1);
      const int fraction = code & ((1 << kMantissa) - 1);
      const int significand = exponent == 0 ? fraction : fraction + (1 << kMantissa);
      float magnitude = static_cast<float>(significand);
      const int power = (exponent == 0 ? 1 : exponent) - kBias - kMantissa;
      for (int i = 0; i < power; ++i) magnitude *= 2;
      for (int i = 0; i > power; --i) magnitude /= 2;
      values[code] = code < kSize / 2 ? magnitude : -magnitude;
    }
  }
};

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// The largest magnitude is NaN; there is no infinity.
constexpr ElementTable<4, 3> make_e4m3() {
  ElementTable<4, 3> table;
  table.values[0x7f] = table.values[0xff] = kNaN;
  return table;
}

// As in IEEE 754.
constexpr ElementTable<5, 2> make_e5m2() {
  ElementTable<5, 2> table;
  table.values[0x7c] = kInfinity;
  table.values[0xfc] = -kInfinity;
  for (int code = 0x7d; code <= 0x7f; ++code) table.values[code] = table.values[code | 0x80] = kNaN;
  return table;
}

constexpr ElementTable<2, 3> kE2m3;
constexpr ElementTable<3, 2> kE3m2;
constexpr ElementTable<4, 3> kE4m3 = make_e4m3();
constexpr ElementTable<5, 2> kE5m2 = make_e5m2();
static_assert(kE2m3.values[0x1f] == 7.5f && kE2m3.values[1] == 0.125f);
static_assert(kE3m2.values[0x1f] == 28.0f && kE3m2.values[1] == 0.0625f);
static_assert(kE4m3.values[0x7e] == 448.0f && kE4m3.values[1] == 0x1p-9f);
static_assert(kE5m2.values[0x7b] == 57344.0f && kE5m2.values[1] == 0x1p-16f);

}  // namespace

const float* element_table(int32_t kind) {
  switch (kind) {
    case BL_KIND_e2m1:
      return kE2m1;
    case BL_KIND_e2m3:
      return kE2m3.values;
    case BL_KIND_e3m2:
      return kE3m2.values;
    case BL_KIND_e4m3:
      return kE4m3.values;
    case BL_KIND_e5m2:
      return kE5m2.values;
    default:
      return nullptr;
  }
}

}  // namespace bitloom
