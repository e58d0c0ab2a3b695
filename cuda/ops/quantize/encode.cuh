// Encodes a group or block by one thread, in the CPU encoder's order of operations (native/formats: grouped_encode.cc,
// gguf_encode.cc), so with its bytes. Products and sums are written as single roundings: the compiler would fuse them.
#pragma once

#include "../../tile/decode_weight.cuh"
#include "../../tile/typed.cuh"
#include "config.h"

namespace bitloom::cuda {

// `count` weights of a row, as they are to be encoded; `elements` with those past the row's end.
struct Group {
  const void* data;
  int32_t dtype;
  int64_t first, stride;  // element of weight 0
  int64_t count;
  float tensor_scale;

  __device__ __forceinline__ float operator[](int64_t i) const {
    const float value = load_element(dtype, data, first + i * stride);
    if (tensor_scale == 1.0f) return value;
    constexpr double kLargest = 3.4028234663852886e38;
    return static_cast<float>(fmin(fmax(static_cast<double>(value) / tensor_scale, -kLargest), kLargest));
  }
};

__device__ __forceinline__ double clamped(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

// Rounds a scale to the type it is stored in; saturates, and the largest level stays finite.
__device__ __forceinline__ float stored_scale(int32_t dtype, float largest_level, double scale) {
  constexpr double kLargest = 3.4028234663852886e38;
  const float value = static_cast<float>(clamped(scale, -kLargest, kLargest));
  if (dtype == BL_SCALE_f16) return ptx::cvt_f32_f16(ptx::cvt_f16_f32(fminf(fmaxf(value, -65504.0f), 65504.0f))) + 0.0f;
  uint32_t bits = ptx::cvt_bf16_f32(value);
  if ((bits & 0x7fff) == 0x7f80) --bits;
  while (isinf(bf16_value(bits) * largest_level)) --bits;
  return bf16_value(bits) + 0.0f;
}

// Writes bits one code after another, and the rest of the block's bytes as zeros.
class CodeWriter {
 public:
  __device__ __forceinline__ CodeWriter(uint8_t* at, int bits) : at_(at), bits_(bits) {}
  __device__ __forceinline__ void put(int code) {
    word_ |= (static_cast<uint32_t>(code) & ((1u << bits_) - 1)) << used_;
    used_ += bits_;
    if (used_ >= 8) {
      *at_++ = static_cast<uint8_t>(word_);
      word_ >>= 8;
      used_ -= 8;
    }
  }
  __device__ __forceinline__ void finish(const uint8_t* end) {
#pragma unroll 1
    while (at_ < end) {
      *at_++ = static_cast<uint8_t>(word_);
      word_ = 0;
    }
  }

 private:
  uint8_t* at_;
  int bits_;
  uint32_t word_ = 0;
  int used_ = 0;
};

// By the conversion of a pair, whose result has 32 bits: of 16 bits whose low byte is stored, ptxas 13.0 makes a conversion to
// an integer of 8 bits, and the byte is lost.
__device__ __forceinline__ void store_scalar(uint8_t* at, int32_t dtype, float value) {
  const uint32_t bits = dtype == BL_SCALE_bf16 ? ptx::cvt_bf16x2_f32(0.0f, value) : ptx::cvt_f16x2_f32(0.0f, value);
  at[0] = static_cast<uint8_t>(bits);
  at[1] = static_cast<uint8_t>(bits >> 8);
}

// Codes low to high, standing for (code - zero_point) * scale.
struct Levels {
  int low, high;
  float zero_point;

  __device__ __forceinline__ double code(float value, float scale) const {
    if (scale == 0.0f) return clamped(zero_point, low, high);
    return rint(clamped(__dadd_rn(static_cast<double>(value) / scale, zero_point), low, high));
  }
};

// Sum of squared errors, in order.
__device__ __forceinline__ double squared_error(const Group& group, const Levels& levels, float scale) {
  double error = 0;
#pragma unroll 1
  for (int64_t i = 0; i < group.count; ++i) {
    const float value = group[i];
    const float level = static_cast<float>(levels.code(value, scale)) - levels.zero_point;
    const double difference = __dsub_rn(value, __fmul_rn(scale, level));
    error = __dadd_rn(error, __dmul_rn(difference, difference));
  }
  return error;
}

struct Extent {
  float min, max, signed_max;
  double mean_magnitude;
};
__device__ __forceinline__ Extent extent_of(const Group& group) {
  Extent extent{group[0], group[0], 0.0f, 0.0};
#pragma unroll 1
  for (int64_t i = 0; i < group.count; ++i) {
    const float value = group[i];
    extent.min = fminf(extent.min, value);
    extent.max = fmaxf(extent.max, value);
    if (fabsf(value) > fabsf(extent.signed_max)) extent.signed_max = value;
    extent.mean_magnitude += fabs(static_cast<double>(value));
  }
  extent.mean_magnitude /= static_cast<double>(group.count);
  return extent;
}

// u<b>, i<b>, t2, u<b>z, i<b>z by minmax.
__device__ __forceinline__ void encode_grouped(const WeightsParams& w, const Group& group, uint8_t* bytes) {
  const Extent extent = extent_of(group);
  const bool ternary = w.kind == BL_KIND_ternary;
  const int half = 1 << (w.bits - 1);
  Levels levels{ternary ? -1 : -half, ternary ? 1 : half - 1, 0.0f};
  int offset = ternary ? 1 : w.kind == BL_KIND_unsigned_int ? half : 0;
  float scale;
  if (w.has_zero_point != 0) {
    if (w.kind == BL_KIND_unsigned_int) levels.low = 0, levels.high = 2 * half - 1;
    offset = 0;
    const double min = fminf(0.0f, extent.min), max = fmaxf(0.0f, extent.max);
    scale = stored_scale(w.scale_dtype, static_cast<float>(levels.high - levels.low), (max - min) / (levels.high - levels.low));
    if (scale != 0.0f) {
      // Plus 0: never -0, which the CPU's way of rounding does not give.
      const double exact = clamped(__dsub_rn(levels.low, min / scale), levels.low, levels.high);
      levels.zero_point = static_cast<float>(rint(exact) + 0.0);
    }
    store_scalar(bytes + 2, w.scale_dtype, levels.zero_point);
  } else if (ternary) {
    scale = stored_scale(w.scale_dtype, 1.0f, extent.mean_magnitude);
  } else {
    const float onto_low = stored_scale(w.scale_dtype, static_cast<float>(half), static_cast<double>(extent.signed_max) / levels.low);
    const float onto_high = stored_scale(w.scale_dtype, static_cast<float>(half), fabs(static_cast<double>(extent.signed_max)) / levels.high);
    scale = squared_error(group, levels, onto_high) < squared_error(group, levels, onto_low) ? onto_high : onto_low;
  }
  store_scalar(bytes, w.scale_dtype, scale);
  CodeWriter codes(bytes + w.header_bytes, w.bits);
#pragma unroll 1
  for (int64_t i = 0; i < group.count; ++i) codes.put(static_cast<int>(levels.code(group[i], scale)) + offset);
  codes.finish(bytes + w.block_bytes);
}

// q8_0 and q4_0 by ggml's rules: codes by the reciprocal of the scale before it is rounded.
__device__ __forceinline__ void encode_legacy(const WeightsParams& w, const Group& group, uint8_t* bytes) {
  const bool is_q8 = w.format == BL_FORMAT_q8_0;
  const float signed_max = extent_of(group).signed_max;
  float scale = is_q8 ? fabsf(signed_max) / 127.0f : signed_max / -8.0f;
  float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  if (fabsf(scale) >= 65520.0f) {
    scale = copysignf(65504.0f, scale);
    inverse = 1.0f / scale;
  }
  if (isinf(inverse)) inverse = 0.0f;
  store_scalar(bytes, BL_SCALE_f16, scale);
  if (is_q8) {
#pragma unroll 1
    for (int i = 0; i < 32; ++i) {
      bytes[2 + i] = static_cast<uint8_t>(static_cast<int>(clamped(roundf(group[i] * inverse), -127, 127)));
    }
    return;
  }
  const auto code = [&](int i) {
    return static_cast<int>(clamped(__fadd_rn(__fmul_rn(group[i], inverse), 8.5f), 0, 15));
  };
#pragma unroll 1
  for (int i = 0; i < 16; ++i) bytes[2 + i] = static_cast<uint8_t>(code(i) | code(i + 16) << 4);
}

}  // namespace bitloom::cuda
