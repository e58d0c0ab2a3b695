// Packing of the K types: integers to the blocks of gguf_blocks.h, whose pictures these follow.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "../base/float16.h"
#include "gguf_blocks.h"

namespace bitloom {

// A super-block before it is packed.
struct SuperBlock {
  double error = std::numeric_limits<double>::infinity();
  float super_scale = 0;  // as stored
  float super_min = 0;
  int scales[16] = {};  // of the sub-blocks
  int mins[16] = {};
  int codes[256] = {};
};

inline void pack_two_bits(const int* codes, uint8_t* bytes) {
  std::memset(bytes, 0, 64);
  for (int i = 0; i < 256; ++i) {
    bytes[32 * (i / 128) + i % 32] |= static_cast<uint8_t>((codes[i] & 3) << (2 * (i / 32 % 4)));
  }
}

inline void pack_four_bits(const int* codes, uint8_t* bytes) {
  std::memset(bytes, 0, 128);
  for (int i = 0; i < 256; ++i) {
    bytes[32 * (i / 64) + i % 32] |= static_cast<uint8_t>((codes[i] & 15) << (i % 64 < 32 ? 0 : 4));
  }
}

// Bit `bit` of each code, a plane of 32 weights in each bit of the bytes.
inline void pack_high_bits(const int* codes, int bit, uint8_t* bytes) {
  std::memset(bytes, 0, 32);
  for (int i = 0; i < 256; ++i) {
    bytes[i % 32] |= static_cast<uint8_t>((codes[i] >> bit & 1) << (i / 32));
  }
}

inline void pack_scales_and_mins(const SuperBlock& block, uint8_t* bytes) {
  for (int s = 0; s < 4; ++s) {
    const int scale = block.scales[s + 4];
    const int min = block.mins[s + 4];
    bytes[s] = static_cast<uint8_t>(block.scales[s] | scale >> 4 << 6);
    bytes[s + 4] = static_cast<uint8_t>(block.mins[s] | min >> 4 << 6);
    bytes[s + 8] = static_cast<uint8_t>((scale & 15) | (min & 15) << 4);
  }
}

inline void pack(const SuperBlock& fit, BlockQ2K& block) {
  block.super_scale = f32_to_f16(fit.super_scale);
  block.super_min = f32_to_f16(fit.super_min);
  for (int s = 0; s < 16; ++s) {
    block.scales_and_mins[s] = static_cast<uint8_t>(fit.scales[s] | fit.mins[s] << 4);
  }
  pack_two_bits(fit.codes, block.codes);
}

inline void pack(const SuperBlock& fit, BlockQ3K& block) {
  block.super_scale = f32_to_f16(fit.super_scale);
  int codes[256];
  for (int i = 0; i < 256; ++i) codes[i] = fit.codes[i] + 4;
  pack_two_bits(codes, block.codes);
  pack_high_bits(codes, 2, block.high_bits);
  std::memset(block.scales, 0, sizeof(block.scales));
  for (int s = 0; s < 16; ++s) {
    const int scale = fit.scales[s] + 32;
    block.scales[s % 8] |= static_cast<uint8_t>((scale & 15) << (s < 8 ? 0 : 4));
    block.scales[8 + s % 4] |= static_cast<uint8_t>(scale >> 4 << (2 * (s / 4)));
  }
}

inline void pack(const SuperBlock& fit, BlockQ4K& block) {
  block.super_scale = f32_to_f16(fit.super_scale);
  block.super_min = f32_to_f16(fit.super_min);
  pack_scales_and_mins(fit, block.scales);
  pack_four_bits(fit.codes, block.codes);
}

inline void pack(const SuperBlock& fit, BlockQ5K& block) {
  block.super_scale = f32_to_f16(fit.super_scale);
  block.super_min = f32_to_f16(fit.super_min);
  pack_scales_and_mins(fit, block.scales);
  pack_four_bits(fit.codes, block.codes);
  pack_high_bits(fit.codes, 4, block.high_bits);
}

inline void pack(const SuperBlock& fit, BlockQ6K& block) {
  block.super_scale = f32_to_f16(fit.super_scale);
  for (int s = 0; s < 16; ++s) block.scales[s] = static_cast<int8_t>(fit.scales[s]);
  std::memset(block.codes, 0, sizeof(block.codes));
  std::memset(block.high_bits, 0, sizeof(block.high_bits));
  for (int i = 0; i < 256; ++i) {
    const int code = fit.codes[i] + 32;
    const int half = i / 128;
    const int plane = i / 32 % 4;
    block.codes[64 * half + 32 * (plane % 2) + i % 32] |=
        static_cast<uint8_t>((code & 15) << (plane < 2 ? 0 : 4));
    block.high_bits[32 * half + i % 32] |= static_cast<uint8_t>(code >> 4 << (2 * plane));
  }
}

}  // namespace bitloom
