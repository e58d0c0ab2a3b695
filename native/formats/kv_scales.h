// How the scales of a paged cache's formats follow from the values they are for. One definition for the
// specification (kv_page.cc) and the vector kernels, so that all give the same bits.
//
// `largest` is the largest magnitude among the values as the bits of an f32; infinity and NaN come last in
// that order, and a group with one of them is NaN as a whole.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "../base/float16.h"

namespace bitloom {

constexpr uint32_t kInfinityBits = 0x7f800000u;

// KvScale::token. code = x * (1 / scale) to nearest even, 0 where the scale is 0 or NaN. Scales that would be
// denormal are 0: their reciprocal is not finite.
inline float kv_token_scale(uint32_t largest) {
  if (largest >= kInfinityBits) return std::bit_cast<float>(0x7fc00000u);
  const float scale = std::bit_cast<float>(largest) / 127;
  return scale < 0x1p-126f ? 0 : scale;
}

// KvScale::channel: two f16.
struct KvAffine {
  uint16_t scale, offset;
};
static_assert(sizeof(KvAffine) == 4);

// code = (x - offset) * (1 / scale) to nearest even, in [0, 2^bits - 1]. Both saturate at f16's largest
// value. The scale spans what is left above the offset as f16 rounds it; -0 is no offset.
inline KvAffine kv_affine_of(uint32_t largest, float low, float high, int32_t bits) {
  constexpr float kLargest = 65504;
  if (largest >= kInfinityBits) return {0x7e00u, 0};
  const uint16_t offset = f32_to_f16(std::clamp(low, -kLargest, kLargest) + 0.0f);
  const float span = std::max(0.0f, high - f16_to_f32(offset));  // never -0
  return {f32_to_f16(std::min(span / static_cast<float>((1 << bits) - 1), kLargest)), offset};
}

// 1 / scale, or 0 where all codes are 0.
inline float kv_affine_inverse(KvAffine scales) {
  const float scale = f16_to_f32(scales.scale);
  return scale > 0 ? 1 / scale : 0;
}

// KvScale::block: the byte of the smallest exponent at which no code exceeds 2^(bits - 1) - 1. The largest
// magnitude comes into [2^(bits - 2), 2^(bits - 1)), or one binade lower where it would be rounded to
// 2^(bits - 1): adding half a step to its bits carries into the exponent just then.
inline uint8_t kv_block_exponent(uint32_t largest, int32_t bits) {
  if (largest >= kInfinityBits) return 255;
  const int32_t top = bits - 2;
  const uint32_t half_step = 1u << (24 - bits);
  const int32_t exponent = static_cast<int32_t>((largest + half_step) >> 23);
  return static_cast<uint8_t>(std::clamp(exponent, top, 254) - top);
}

// 2^(127 - exponent); 0 for NaN.
inline float kv_block_inverse(uint8_t exponent) {
  return exponent == 255 ? 0 : std::bit_cast<float>(static_cast<uint32_t>(254 - exponent) << 23);
}

}  // namespace bitloom
