// The small floating-point formats: decoding is exact, encoding rounds once from a double.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace bitloom::ptx {

enum class Rounding : uint8_t { nearest_even, nearest_away, zero, down, up };

struct FloatFormat {
  int exponent_bits, mantissa_bits;
  bool has_infinity;
  uint32_t nan;         // the canonical NaN
  uint32_t max_finite;  // bits of the largest finite value
};
constexpr FloatFormat kF16{5, 10, true, 0x7fff, 0x7bff};
constexpr FloatFormat kBf16{8, 7, true, 0x7fff, 0x7f7f};
constexpr FloatFormat kE4m3{4, 3, false, 0x7f, 0x7e};
constexpr FloatFormat kE5m2{5, 2, true, 0x7f, 0x7b};
constexpr FloatFormat kTf32{8, 10, true, 0x3ffff,
                            0x3fbff};  // in its own 19 bits; registers hold it shifted by 13
constexpr FloatFormat kF32{8, 23, true, 0x7fffffff, 0x7f7fffff};

// saturate: overflow and infinity give the largest finite value (.satfinite).
uint32_t encode(double value, const FloatFormat& format, Rounding rounding = Rounding::nearest_even,
                bool saturate = false);
double decode(uint32_t bits, const FloatFormat& format);

// x + y rounded to odd: a second rounding to at most 51 bits then gives what one rounding of the exact sum
// gives.
double add_to_odd(double x, double y);

// f16 and bf16 as values of lanes.
struct Half {
  uint16_t bits;
};
struct Brain {
  uint16_t bits;
};
struct Half2 {
  Half lo, hi;
};
struct Brain2 {
  Brain lo, hi;
};

inline float to_float(Half h) {
  // The exponent is rebiased by a multiplication, which is exact and handles subnormals; the largest exponent
  // is moved on to that of f32's infinity and NaN.
  const uint32_t magnitude = static_cast<uint32_t>(h.bits & 0x7fff) << 13;
  float value = std::bit_cast<float>(magnitude) * 0x1p112f;
  uint32_t bits = std::bit_cast<uint32_t>(value);
  bits |= magnitude >= 0x0f800000 ? 0x7f800000 : 0;
  bits |= static_cast<uint32_t>(h.bits & 0x8000) << 16;
  return std::bit_cast<float>(bits);
}
inline float to_float(Brain b) { return std::bit_cast<float>(static_cast<uint32_t>(b.bits) << 16); }

inline Half to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {0x7fff};
  if (magnitude >= 0x47800000) return {static_cast<uint16_t>(sign | 0x7c00)};  // 65536 and above
  if (magnitude <
      0x38800000) {  // below 2^-14: adding 0.5 aligns the last bit of a subnormal with f32's last bit
    const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x3f000000))};
  }
  const uint32_t odd = magnitude >> 13 & 1;
  return {static_cast<uint16_t>(sign | ((magnitude - 0x38000000 + 0xfff + odd) >> 13))};
}
inline Brain to_brain(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// Sign-preserving zero for subnormals (.ftz).
inline float flush(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return bits & 0x7f800000 ? value : std::bit_cast<float>(bits & 0x80000000);
}

}  // namespace bitloom::ptx
