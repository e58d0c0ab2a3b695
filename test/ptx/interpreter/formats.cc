#include "formats.h"

#include <algorithm>

namespace bitloom::ptx {

uint32_t encode(double value, const FloatFormat& format, Rounding rounding, bool saturate) {
  const uint32_t sign = std::signbit(value) ? 1u << (format.exponent_bits + format.mantissa_bits) : 0;
  if (std::isnan(value)) return format.nan;
  const uint32_t overflow = format.has_infinity && !saturate
                                ? ((1u << format.exponent_bits) - 1) << format.mantissa_bits
                                : (saturate ? format.max_finite : format.nan);
  if (std::isinf(value)) return sign | overflow;
  const double magnitude = std::fabs(value);
  if (magnitude == 0) return sign;
  const int bias = (1 << (format.exponent_bits - 1)) - 1;
  int exponent;
  std::frexp(magnitude, &exponent);  // magnitude = m * 2^exponent, m in [0.5, 1)
  const int unit = std::max(exponent - 1, 1 - bias) - format.mantissa_bits;  // of the last place
  const double scaled = std::ldexp(magnitude, -unit);
  double whole = std::floor(scaled);
  const double rest = scaled - whole;
  bool up = false;
  switch (rounding) {
    case Rounding::nearest_even:
      up = rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2.0) == 1.0);
      break;
    case Rounding::nearest_away:
      up = rest >= 0.5;
      break;
    case Rounding::zero:
      break;
    case Rounding::down:
      up = rest > 0 && sign;
      break;
    case Rounding::up:
      up = rest > 0 && !sign;
      break;
  }
  if (up) whole += 1;
  // With the implicit bit still in `whole`, the exponent field below is one short, and carries come out
  // right.
  const uint64_t bits =
      (static_cast<uint64_t>(unit + format.mantissa_bits + bias - 1) << format.mantissa_bits) +
      static_cast<uint64_t>(whole);
  if (bits > format.max_finite) {
    const bool toward_zero = rounding == Rounding::zero || (rounding == Rounding::down && !sign) ||
                             (rounding == Rounding::up && sign);
    return sign | (toward_zero ? format.max_finite : overflow);
  }
  return sign | static_cast<uint32_t>(bits);
}

double decode(uint32_t bits, const FloatFormat& format) {
  const uint32_t mantissa = bits & ((1u << format.mantissa_bits) - 1);
  const uint32_t exponent = bits >> format.mantissa_bits & ((1u << format.exponent_bits) - 1);
  const uint32_t magnitude = bits & ((1u << (format.exponent_bits + format.mantissa_bits)) - 1);
  const bool negative = bits >> (format.exponent_bits + format.mantissa_bits) & 1;
  const int bias = (1 << (format.exponent_bits - 1)) - 1;
  double value;
  if (magnitude > format.max_finite) {
    const bool infinite = format.has_infinity && mantissa == 0;
    value = infinite ? HUGE_VAL : std::nan("");
  } else if (exponent == 0) {
    value = std::ldexp(mantissa, 1 - bias - format.mantissa_bits);
  } else {
    value = std::ldexp(mantissa + (1u << format.mantissa_bits),
                       static_cast<int>(exponent) - bias - format.mantissa_bits);
  }
  return negative ? -value : value;
}

double add_to_odd(double x, double y) {
  const double sum = x + y;
  if (!std::isfinite(sum)) return sum;
  const double y_part = sum - x;
  const double error = (x - (sum - y_part)) + (y - y_part);  // exact: Knuth's two-sum
  if (error == 0) return sum;
  uint64_t bits = std::bit_cast<uint64_t>(sum);
  if (bits & 1) return sum;
  // The neighbour of sum on the side of the error is odd.
  const bool away_from_zero = (error > 0) == (sum > 0);
  bits += away_from_zero ? 1 : -1;
  return std::bit_cast<double>(bits);
}

}  // namespace bitloom::ptx
