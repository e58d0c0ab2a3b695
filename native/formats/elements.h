// Numbers of a byte or less that block formats are made of: shared scales and elements (OCP Microscaling
// v1.0, OCP 8-bit Floating Point v1.0).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "../base/float16.h"
#include "../include/bitloom.h"

namespace bitloom {

// Values of a kind's codes, [2^bits], or null for kinds without such a table.
const float* element_table(int32_t kind);

// A shared exponent: 2^(byte - 127), 255 is NaN. Exact; 2^-127 is an f32 denormal.
inline float e8m0_to_f32(uint8_t byte) {
  if (byte == 255) return std::bit_cast<float>(0x7fc00000u);
  return std::bit_cast<float>(byte == 0 ? 0x00400000u : static_cast<uint32_t>(byte) << 23);
}

// The byte of 2^exponent, -127 to 127.
inline uint8_t e8m0_of_exponent(int exponent) { return static_cast<uint8_t>(exponent + 127); }

// A scale of NVFP4: E4M3 without its sign; 127 is NaN.
inline float ue4m3_to_f32(uint8_t byte) { return f8e4m3_to_f32(byte & 0x7f); }

// The nearest UE4M3 byte of x >= 0, ties to even; beyond 448 saturates.
inline uint8_t ue4m3_of(double x) {
  if (!(x < 448)) return 0x7e;
  if (x < 0x1p-10) return 0;  // below half of the smallest, or at it: ties to even
  int exponent = std::ilogb(x);
  if (exponent < -6) exponent = -6;  // denormals share the smallest exponent
  const double mantissa = std::nearbyint(std::ldexp(x, 3 - exponent));  // 8 to 16; denormal 0 to 8
  return static_cast<uint8_t>(8 * (exponent + 7) + static_cast<int>(mantissa) - 8);
}

// A stored scale, zero point or entry of a row's table: bl_scale_dtype.
inline float scale_value(int32_t type, const uint8_t* bytes) {
  if (type == BL_SCALE_e8m0) return e8m0_to_f32(*bytes);
  if (type == BL_SCALE_e4m3) return ue4m3_to_f32(*bytes);
  const uint16_t bits = load_as<uint16_t>(bytes);
  return type == BL_SCALE_bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

// floor(log2(x)), x > 0.
inline int floor_log2(double x) { return std::ilogb(x); }

}  // namespace bitloom
