// Exact scalar decoders of the GGUF block types. No product below needs more than 24 bits (11 of a
// binary16 scale, 6 to 8 of a sub-block's scale, 2 to 8 of a code), so each weight is rounded at most
// once, where a minimum is added or subtracted: fused and separate arithmetic agree.
#include "../base/float16.h"
#include "elements.h"
#include "formats.h"
#include "gguf.h"
#include "gguf_blocks.h"

namespace bitloom {
namespace {

void decode(const BlockQ8_0& block, float* values) {
  const float scale = f16_to_f32(block.scale);
  for (int i = 0; i < 32; ++i) values[i] = scale * static_cast<float>(block.codes[i]);
}

// Code i of 32 that lie as two rows of nibbles, low ones first.
int nibble(const uint8_t* codes, int i) { return i < 16 ? codes[i] & 15 : codes[i - 16] >> 4; }

int fifth_bit(const uint8_t* high_bits, int i) { return (high_bits[i / 8] >> (i % 8) & 1) << 4; }

void decode(const BlockQ4_0& block, float* values) {
  const float scale = f16_to_f32(block.scale);
  for (int i = 0; i < 32; ++i) {
    values[i] = scale * static_cast<float>(nibble(block.codes, i) - 8);
  }
}

void decode(const BlockQ4_1& block, float* values) {
  const float scale = f16_to_f32(block.scale);
  const float min = f16_to_f32(block.min);
  for (int i = 0; i < 32; ++i) {
    values[i] = scale * static_cast<float>(nibble(block.codes, i)) + min;
  }
}

void decode(const BlockQ5_0& block, float* values) {
  const float scale = f16_to_f32(block.scale);
  for (int i = 0; i < 32; ++i) {
    const int code = nibble(block.codes, i) | fifth_bit(block.high_bits, i);
    values[i] = scale * static_cast<float>(code - 16);
  }
}

void decode(const BlockQ5_1& block, float* values) {
  const float scale = f16_to_f32(block.scale);
  const float min = f16_to_f32(block.min);
  for (int i = 0; i < 32; ++i) {
    const int code = nibble(block.codes, i) | fifth_bit(block.high_bits, i);
    values[i] = scale * static_cast<float>(code) + min;
  }
}

// Two-bit code of weight i of 256: four planes of 32 in each half.
int two_bits(const uint8_t* codes, int i) {
  const int half = i / 128;
  const int plane = i / 32 % 4;
  return codes[32 * half + i % 32] >> (2 * plane) & 3;
}

void decode(const BlockQ2K& block, float* values) {
  const float super_scale = f16_to_f32(block.super_scale);
  const float super_min = f16_to_f32(block.super_min);
  for (int s = 0; s < 16; ++s) {
    const float scale = super_scale * static_cast<float>(block.scales_and_mins[s] & 15);
    const float min = super_min * static_cast<float>(block.scales_and_mins[s] >> 4);
    for (int i = 16 * s; i < 16 * s + 16; ++i) {
      values[i] = scale * static_cast<float>(two_bits(block.codes, i)) - min;
    }
  }
}

void decode(const BlockQ3K& block, float* values) {
  const float super_scale = f16_to_f32(block.super_scale);
  for (int s = 0; s < 16; ++s) {
    const float scale = super_scale * static_cast<float>(unpack_q3_k_scale(block.scales, s));
    for (int i = 16 * s; i < 16 * s + 16; ++i) {
      const int high = block.high_bits[i % 32] >> (i / 32) & 1;
      values[i] = scale * static_cast<float>((two_bits(block.codes, i) | high << 2) - 4);
    }
  }
}

// Four-bit code of weight i of 256: low and high nibbles of 32 bytes for every 64 weights.
int four_bits(const uint8_t* codes, int i) {
  const uint8_t byte = codes[32 * (i / 64) + i % 32];
  return i % 64 < 32 ? byte & 15 : byte >> 4;
}

void decode(const BlockQ4K& block, float* values) {
  const float super_scale = f16_to_f32(block.super_scale);
  const float super_min = f16_to_f32(block.super_min);
  for (int s = 0; s < 8; ++s) {
    const ScaleAndMin packed = unpack_scale_and_min(block.scales, s);
    const float scale = super_scale * static_cast<float>(packed.scale);
    const float min = super_min * static_cast<float>(packed.min);
    for (int i = 32 * s; i < 32 * s + 32; ++i) {
      values[i] = scale * static_cast<float>(four_bits(block.codes, i)) - min;
    }
  }
}

void decode(const BlockQ5K& block, float* values) {
  const float super_scale = f16_to_f32(block.super_scale);
  const float super_min = f16_to_f32(block.super_min);
  for (int s = 0; s < 8; ++s) {
    const ScaleAndMin packed = unpack_scale_and_min(block.scales, s);
    const float scale = super_scale * static_cast<float>(packed.scale);
    const float min = super_min * static_cast<float>(packed.min);
    for (int i = 32 * s; i < 32 * s + 32; ++i) {
      const int high = block.high_bits[i % 32] >> s & 1;
      values[i] = scale * static_cast<float>(four_bits(block.codes, i) | high << 4) - min;
    }
  }
}

void decode(const BlockQ6K& block, float* values) {
  const float super_scale = f16_to_f32(block.super_scale);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int plane = i / 32 % 4;
    const uint8_t byte = block.codes[64 * half + 32 * (plane % 2) + i % 32];
    const int low = plane < 2 ? byte & 15 : byte >> 4;
    const int high = block.high_bits[32 * half + i % 32] >> (2 * plane) & 3;
    const float scale = super_scale * static_cast<float>(block.scales[i / 16]);
    values[i] = scale * static_cast<float>((low | high << 4) - 32);
  }
}

// Trit n of a byte that holds trits as a base-3 fraction of 256.
int trit(uint8_t byte, int n) {
  constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
  const uint8_t fraction = static_cast<uint8_t>(byte * kPowers[n]);
  return fraction * 3 >> 8;
}

void decode(const BlockTQ1_0& block, float* values) {
  const float scale = f16_to_f32(block.scale);
  for (int n = 0; n < 5; ++n) {
    for (int m = 0; m < 32; ++m) {
      values[32 * n + m] = scale * static_cast<float>(trit(block.codes[m], n) - 1);
    }
    for (int m = 0; m < 16; ++m) {
      values[160 + 16 * n + m] = scale * static_cast<float>(trit(block.codes[32 + m], n) - 1);
    }
  }
  for (int n = 0; n < 4; ++n) {
    for (int m = 0; m < 4; ++m) {
      values[240 + 4 * n + m] = scale * static_cast<float>(trit(block.tail_codes[m], n) - 1);
    }
  }
}

void decode(const BlockTQ2_0& block, float* values) {
  const float scale = f16_to_f32(block.scale);
  for (int i = 0; i < 256; ++i) {
    values[i] = scale * static_cast<float>(two_bits(block.codes, i) - 1);
  }
}

void decode(const BlockIQ4NL& block, float* values) {
  const float scale = f16_to_f32(block.scale);
  for (int i = 0; i < 32; ++i) {
    values[i] = scale * static_cast<float>(kIq4Nl[nibble(block.codes, i)]);
  }
}

void decode(const BlockMXFP4& block, float* values) {
  const float scale = e8m0_to_f32(block.exponent);
  for (int i = 0; i < 32; ++i) values[i] = scale * kE2m1[nibble(block.codes, i)];
}

void decode(const BlockNVFP4& block, float* values) {
  for (int i = 0; i < 64; ++i) {
    const uint8_t byte = block.codes[8 * (i / 16) + i % 8];
    values[i] = ue4m3_to_f32(block.scales[i / 16]) * kE2m1[i % 16 < 8 ? byte & 15 : byte >> 4];
  }
}

// Decodes a block at any address; a part of one by way of a whole one.
template <typename Block, int kElements>
void decode_part(const uint8_t* bytes, int64_t count, float* values) {
  const Block block = load_as<Block>(bytes);
  if (count == kElements) {
    decode(block, values);
    return;
  }
  float whole[kElements];
  decode(block, whole);
  for (int64_t i = 0; i < count; ++i) values[i] = whole[i];
}

}  // namespace

void decode_gguf_block(int32_t format, const uint8_t* bytes, int64_t count, float* values) {
  if (count <= 0) return;
  switch (format) {
    case BL_FORMAT_f32:
      values[0] = load_as<float>(bytes);
      return;
    case BL_FORMAT_f16:
      values[0] = f16_to_f32(load_as<uint16_t>(bytes));
      return;
    case BL_FORMAT_bf16:
      values[0] = bf16_to_f32(load_as<uint16_t>(bytes));
      return;
    case BL_FORMAT_q8_0:
      return decode_part<BlockQ8_0, 32>(bytes, count, values);
    case BL_FORMAT_q4_0:
      return decode_part<BlockQ4_0, 32>(bytes, count, values);
    case BL_FORMAT_q4_1:
      return decode_part<BlockQ4_1, 32>(bytes, count, values);
    case BL_FORMAT_q5_0:
      return decode_part<BlockQ5_0, 32>(bytes, count, values);
    case BL_FORMAT_q5_1:
      return decode_part<BlockQ5_1, 32>(bytes, count, values);
    case BL_FORMAT_q2_k:
      return decode_part<BlockQ2K, 256>(bytes, count, values);
    case BL_FORMAT_q3_k:
      return decode_part<BlockQ3K, 256>(bytes, count, values);
    case BL_FORMAT_q4_k:
      return decode_part<BlockQ4K, 256>(bytes, count, values);
    case BL_FORMAT_q5_k:
      return decode_part<BlockQ5K, 256>(bytes, count, values);
    case BL_FORMAT_q6_k:
      return decode_part<BlockQ6K, 256>(bytes, count, values);
    case BL_FORMAT_tq1_0:
      return decode_part<BlockTQ1_0, 256>(bytes, count, values);
    case BL_FORMAT_tq2_0:
      return decode_part<BlockTQ2_0, 256>(bytes, count, values);
    case BL_FORMAT_iq4_nl:
      return decode_part<BlockIQ4NL, 32>(bytes, count, values);
    case BL_FORMAT_mxfp4:
      return decode_part<BlockMXFP4, 32>(bytes, count, values);
    case BL_FORMAT_nvfp4:
      return decode_part<BlockNVFP4, 64>(bytes, count, values);
    default:
      return;
  }
}

}  // namespace bitloom
