#include "round_e4m3.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "../../base/float16.h"

namespace bitloom {
namespace {

constexpr int64_t kScaleGroup = 32;

// The largest magnitude, infinite if one is not finite.
float largest_of(const float* x, int64_t count) {
  float largest = 0;
  for (int64_t k = 0; k < count; ++k) {
    const float size = std::fabs(x[k]);
    largest = std::max(largest, size <= std::numeric_limits<float>::max() ? size : INFINITY);
  }
  return largest;
}

// Of the least power of two that brings `largest` to at most 448 = 1.75 * 2^8.
int32_t scale_exponent(float largest) {
  const uint32_t bits = std::bit_cast<uint32_t>(largest);
  const int32_t exponent = static_cast<int32_t>(bits >> 23) - 127 - 8 + ((bits & 0x7fffff) > 0x600000);
  return std::max(exponent, kLeastE4m3Exponent);
}

float power_of_two(int32_t exponent) {
  return std::bit_cast<float>(static_cast<uint32_t>(exponent + 127) << 23);
}

void round_group(float* x, int64_t count, float scale, float inverse) {
  for (int64_t k = 0; k < count; ++k) x[k] = f8e4m3_to_f32(f32_to_f8e4m3(x[k] * inverse)) * scale;
}

}  // namespace

void round_e4m3(float* x, int64_t count, bool per_row) {
  const int64_t group = per_row ? std::max<int64_t>(count, 1) : kScaleGroup;
  for (int64_t begin = 0; begin < count; begin += group) {
    const int64_t length = std::min(group, count - begin);
    const float largest = largest_of(x + begin, length);
    if (largest > std::numeric_limits<float>::max()) {
      std::fill(x + begin, x + begin + length, NAN);
    } else if (!per_row) {
      const int32_t exponent = scale_exponent(largest);
      round_group(x + begin, length, power_of_two(exponent), power_of_two(-exponent));
    } else if (largest < 1.5e-36f) {
      std::fill(x + begin, x + begin + length, 0.0f);
    } else {
      round_group(x + begin, length, largest / kLargestE4m3, kLargestE4m3 / largest);
    }
  }
}

}  // namespace bitloom
