// Deterministic encoders of the GGUF block types but the K types (gguf_encode_k.cc).
//
// Under minmax the legacy and ternary types follow the rounding of ggml's reference encoders, so that
// files come out byte for byte the same: codes are chosen with the reciprocal of the scale before it is
// rounded to binary16, and rounded half up or half away from zero. Where the reference would store an
// infinity (a scale beyond 65504) or divide by a denormal scale, the scale saturates or the codes are
// those of zero.
#include <cmath>
#include <cstring>

#include "../base/float16.h"
#include "gguf.h"
#include "gguf_blocks.h"
#include "line_search.h"
#include "scale_search.h"

namespace bitloom {
namespace {

constexpr StoredScale kF16Scale{BL_DTYPE_f16, 128.0f};

// A scale as the reference stores it, and the factor that it multiplies weights by.
struct ReferenceScale {
  uint16_t bits;
  float inverse;  // 0: all codes are those of zero
};
ReferenceScale reference_scale(float scale) {
  if (std::fabs(scale) >= 65520.0f) {  // the first that rounds to infinity
    const float stored = scale < 0 ? -65504.0f : 65504.0f;
    return {f32_to_f16(stored), 1.0f / stored};
  }
  const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
  return {f32_to_f16(scale), std::isfinite(inverse) ? inverse : 0.0f};
}

// The whole part of x, within [0, high]: "round half up" after 0.5 was added.
int floor_code(float x, int high) { return static_cast<int>(clamp(x, 0, high)); }

// Stores codes[32] as 16 bytes of nibbles and, if not null, their fifth bits.
void store_nibbles(const int* codes, uint8_t* nibbles, uint8_t* high_bits) {
  if (high_bits != nullptr) std::memset(high_bits, 0, 4);
  for (int i = 0; i < 16; ++i) {
    nibbles[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + 16] & 15) << 4);
  }
  for (int i = 0; high_bits != nullptr && i < 32; ++i) {
    high_bits[i / 8] |= static_cast<uint8_t>((codes[i] >> 4 & 1) << (i % 8));
  }
}

void encode_q8_0(const float* values, int32_t method, BlockQ8_0& block) {
  const double largest = Extent(values, 32).largest();
  const ReferenceScale scale = reference_scale(static_cast<float>(largest) / 127.0f);
  block.scale = scale.bits;
  const IntegerLevels levels{-127, 127};
  if (method == BL_QUANTIZE_mse) {
    const double base = largest / 127;
    Fit fit = best_scale(values, 32, levels, kF16Scale, {base});
    fit = search_scale(values, 32, levels, kF16Scale, fit, {base});
    block.scale = f32_to_f16(fit.scale);
    for (int i = 0; i < 32; ++i) {
      block.codes[i] = static_cast<int8_t>(levels.nearest(values[i], fit.scale));
    }
    return;
  }
  for (int i = 0; i < 32; ++i) {
    block.codes[i] = static_cast<int8_t>(clamp(std::round(values[i] * scale.inverse), -127, 127));
  }
}

// q4_0 and q5_0: codes of `half` levels below zero and half - 1 above. Gives the scale's bits.
uint16_t encode_symmetric(const float* values, int32_t method, int half, int* codes) {
  const Extent extent(values, 32);
  if (method == BL_QUANTIZE_mse) {
    const IntegerLevels levels{-half, half - 1};
    const double onto_low = static_cast<double>(extent.signed_max) / -half;
    const double onto_high = extent.largest() / (half - 1);
    Fit fit = best_scale(values, 32, levels, kF16Scale, {onto_low, onto_high});
    fit = search_scale(values, 32, levels, kF16Scale, fit, {onto_low, onto_high});
    for (int i = 0; i < 32; ++i) {
      codes[i] = static_cast<int>(levels.nearest(values[i], fit.scale)) + half;
    }
    return f32_to_f16(fit.scale);
  }
  const ReferenceScale scale = reference_scale(extent.signed_max / static_cast<float>(-half));
  const float offset = static_cast<float>(half) + 0.5f;
  for (int i = 0; i < 32; ++i) {
    codes[i] = floor_code(values[i] * scale.inverse + offset, 2 * half - 1);
  }
  return scale.bits;
}

struct ScaleAndMinBits {
  uint16_t scale;
  uint16_t min;
};

// q4_1 and q5_1: codes 0 to `high` above the block's smallest weight.
ScaleAndMinBits encode_affine(const float* values, int32_t method, int high, int* codes) {
  const Extent extent(values, 32);
  if (method == BL_QUANTIZE_mse) {
    const Line line = search_line(values, 32, high, LineSearch{1, 3, false});
    const float min = f16_to_f32(f32_to_f16_finite(static_cast<float>(line.min)));
    const float scale = StoredScale{BL_DTYPE_f16, static_cast<float>(high)}(line.scale);
    const double inverse = inverse_or_zero(scale);
    for (int i = 0; i < 32; ++i) codes[i] = line_code(values[i], inverse, min, high);
    return {f32_to_f16(scale), f32_to_f16(min)};
  }
  const float min = static_cast<float>(clamp(extent.min, -65504.0, 65504.0));
  const float range = std::max(0.0f, extent.max - min);  // below 0 only if the minimum saturated
  const ReferenceScale scale = reference_scale(range / static_cast<float>(high));
  for (int i = 0; i < 32; ++i) {
    codes[i] = floor_code((values[i] - min) * scale.inverse + 0.5f, high);
  }
  return {scale.bits, f32_to_f16(min)};
}

struct Iq4NlLevels {
  double midpoints[15];
  Iq4NlLevels() {
    for (int i = 0; i < 15; ++i) midpoints[i] = (kIq4Nl[i] + kIq4Nl[i + 1]) / 2.0;
  }
  int code(float value, float scale) const {
    if (scale == 0) return 8;  // the level nearest to zero: 1
    return count_below(midpoints, 16, static_cast<double>(value) / scale);
  }
  float nearest(float value, float scale) const { return kIq4Nl[code(value, scale)]; }
};

void encode_iq4_nl(const float* values, int32_t method, BlockIQ4NL& block) {
  const Iq4NlLevels levels;
  const Extent extent(values, 32);
  const double onto_low = static_cast<double>(extent.signed_max) / kIq4Nl[0];
  const double onto_high = static_cast<double>(extent.signed_max) / kIq4Nl[15];
  Fit fit = best_scale(values, 32, levels, kF16Scale, {onto_low, onto_high});
  // minmax walks the same grid in steps of two; mse's grid contains it.
  fit = search_scale(values, 32, levels, kF16Scale, fit, {onto_low, onto_high}, 2);
  if (method == BL_QUANTIZE_mse) {
    fit = search_scale(values, 32, levels, kF16Scale, fit, {onto_low, onto_high}, 1);
  }
  block.scale = f32_to_f16(fit.scale);
  int codes[32];
  for (int i = 0; i < 32; ++i) codes[i] = levels.code(values[i], fit.scale);
  store_nibbles(codes, block.codes, nullptr);
}

// tq1_0 and tq2_0: trits[256], each 0 to 2. The reference's scale is the largest magnitude.
uint16_t encode_trits(const float* values, int32_t method, int* trits) {
  const Extent extent(values, 256);
  if (method == BL_QUANTIZE_mse) {
    const IntegerLevels levels{-1, 1};
    const double mean = extent.mean_magnitude;
    Fit fit = best_scale(values, 256, levels, kF16Scale, {extent.largest(), mean});
    fit = search_scale(values, 256, levels, kF16Scale, fit, {extent.largest(), 1.5 * mean});
    for (int i = 0; i < 256; ++i) {
      trits[i] = static_cast<int>(levels.nearest(values[i], fit.scale)) + 1;
    }
    return f32_to_f16(fit.scale);
  }
  const ReferenceScale scale = reference_scale(static_cast<float>(extent.largest()));
  for (int i = 0; i < 256; ++i) {
    trits[i] = static_cast<int>(clamp(std::round(values[i] * scale.inverse), -1, 1)) + 1;
  }
  return scale.bits;
}

// A byte of `count` <= 5 trits, `stride` apart, the first one most significant.
uint8_t pack_trits(const int* trits, int count, int stride) {
  int number = 0;
  for (int n = 0; n < 5; ++n) number = 3 * number + (n < count ? trits[n * stride] : 0);
  return static_cast<uint8_t>((number * 256 + 242) / 243);  // rounded up, see BlockTQ1_0
}

void encode_tq1_0(const float* values, int32_t method, BlockTQ1_0& block) {
  int trits[256];
  block.scale = encode_trits(values, method, trits);
  for (int m = 0; m < 32; ++m) block.codes[m] = pack_trits(trits + m, 5, 32);
  for (int m = 0; m < 16; ++m) block.codes[32 + m] = pack_trits(trits + 160 + m, 5, 16);
  for (int m = 0; m < 4; ++m) block.tail_codes[m] = pack_trits(trits + 240 + m, 4, 4);
}

void encode_tq2_0(const float* values, int32_t method, BlockTQ2_0& block) {
  int trits[256];
  block.scale = encode_trits(values, method, trits);
  std::memset(block.codes, 0, sizeof(block.codes));
  for (int i = 0; i < 256; ++i) {
    block.codes[32 * (i / 128) + i % 32] |= static_cast<uint8_t>(trits[i] << (2 * (i / 32 % 4)));
  }
}

void encode_nibble_block(int32_t format, const float* values, int32_t method, uint8_t* bytes) {
  int codes[32];
  if (format == BL_FORMAT_q4_0) {
    BlockQ4_0 block;
    block.scale = encode_symmetric(values, method, 8, codes);
    store_nibbles(codes, block.codes, nullptr);
    std::memcpy(bytes, &block, sizeof(block));
  } else if (format == BL_FORMAT_q5_0) {
    BlockQ5_0 block;
    block.scale = encode_symmetric(values, method, 16, codes);
    store_nibbles(codes, block.codes, block.high_bits);
    std::memcpy(bytes, &block, sizeof(block));
  } else if (format == BL_FORMAT_q4_1) {
    BlockQ4_1 block;
    const ScaleAndMinBits bits = encode_affine(values, method, 15, codes);
    block.scale = bits.scale;
    block.min = bits.min;
    store_nibbles(codes, block.codes, nullptr);
    std::memcpy(bytes, &block, sizeof(block));
  } else {
    BlockQ5_1 block;
    const ScaleAndMinBits bits = encode_affine(values, method, 31, codes);
    block.scale = bits.scale;
    block.min = bits.min;
    store_nibbles(codes, block.codes, block.high_bits);
    std::memcpy(bytes, &block, sizeof(block));
  }
}

template <typename Block>
void encode_with(void (*encode)(const float*, int32_t, Block&), const float* values, int32_t method,
                 uint8_t* bytes) {
  Block block;
  encode(values, method, block);
  std::memcpy(bytes, &block, sizeof(block));
}

void encode_once(int32_t format, const float* values, int32_t method, uint8_t* bytes) {
  switch (format) {
    case BL_FORMAT_q8_0:
      return encode_with(encode_q8_0, values, method, bytes);
    case BL_FORMAT_tq1_0:
      return encode_with(encode_tq1_0, values, method, bytes);
    case BL_FORMAT_tq2_0:
      return encode_with(encode_tq2_0, values, method, bytes);
    case BL_FORMAT_iq4_nl:
      return encode_with(encode_iq4_nl, values, method, bytes);
    case BL_FORMAT_q4_0:
    case BL_FORMAT_q4_1:
    case BL_FORMAT_q5_0:
    case BL_FORMAT_q5_1:
      return encode_nibble_block(format, values, method, bytes);
    default:
      return encode_k_block(format, values, method, bytes);
  }
}

double squared_error(int32_t format, const uint8_t* bytes, const float* values, int64_t count) {
  float decoded[256];
  decode_gguf_block(format, bytes, count, decoded);
  double error = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double difference = static_cast<double>(values[i]) - decoded[i];
    error += difference * difference;
  }
  return error;
}

void store_16_bits(uint16_t bits, uint8_t* bytes) { std::memcpy(bytes, &bits, sizeof(bits)); }

}  // namespace

void encode_gguf_block(int32_t format, const float* values, int32_t method, uint8_t* bytes) {
  switch (format) {
    case BL_FORMAT_f32:
      std::memcpy(bytes, values, sizeof(float));
      return;
    case BL_FORMAT_f16:
      return store_16_bits(f32_to_f16_finite(values[0]), bytes);
    case BL_FORMAT_bf16:
      return store_16_bits(f32_to_bf16_finite(values[0]), bytes);
    case BL_FORMAT_mxfp4:
    case BL_FORMAT_nvfp4:
      return encode_fp4_block(format, values, method, bytes);
    default:
      break;
  }
  encode_once(format, values, BL_QUANTIZE_minmax, bytes);
  if (method != BL_QUANTIZE_mse) return;
  const bl_format_info& info = *bl_get_format_info(format);
  uint8_t searched[256];  // the largest block has 210 bytes
  encode_once(format, values, BL_QUANTIZE_mse, searched);
  if (squared_error(format, searched, values, info.block_elements) <
      squared_error(format, bytes, values, info.block_elements)) {
    std::memcpy(bytes, searched, static_cast<size_t>(info.block_bytes));
  }
}

}  // namespace bitloom
