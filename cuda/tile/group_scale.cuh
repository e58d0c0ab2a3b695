// Scales of layout fragments: from the bits of a record to what decoders take.
#pragma once

#include "../ops/matmul/config.h"
#include "decode.cuh"

namespace bitloom::cuda {

using gemm::FragmentWeights;
using gemm::Second;

// bl_scale_dtype, as the ABI numbers them (checked by host code).
constexpr int kScaleF16 = 1, kScaleBf16 = 2, kScaleE8m0 = 64;

// A stored scale or zero point of 1 or 2 bytes.
__device__ __forceinline__ float scale_value(int type, uint32_t bits) {
  if (type == kScaleF16) return ptx::f32_of_f16(static_cast<uint16_t>(bits));
  if (type == kScaleBf16) return __uint_as_float(bits << 16);
  if (type == kScaleE8m0) {
    return __uint_as_float(bits == 255 ? 0x7fc00000u : bits == 0 ? 0x00400000u : bits << 23);
  }
  const uint32_t code = bits & 0x7f;  // e4m3: f16 with another bias
  return code == 0x7f ? __uint_as_float(0x7fc00000u) : 256 * ptx::f32_of_f16(static_cast<uint16_t>(code << 7));
}

__device__ __forceinline__ uint32_t twice(float x) { return ptx::f16x2_of(x, x); }

// Bits of a column's part of a record, and of its super record.
struct GroupBits {
  uint32_t scale, second, super_scale, super_min;
};

// The lane's copy of the pair tables, as GroupScale::offset has it.
__device__ __forceinline__ uint32_t table_copy(int lane) { return (lane % kTableCopies) * 4; }

template <class Codes>
__device__ __forceinline__ GroupScale group_scale(const FragmentWeights& b, float unit, const GroupBits& bits) {
  GroupScale g{0, 0, 0};
  const float factor = b.factor * unit;
  if (b.super_bytes != 0) {
    const float super = ptx::f32_of_f16(static_cast<uint16_t>(bits.super_scale));
    g.scale = twice(super * (static_cast<float>(bits.scale) - b.sub_zero) * factor);
    g.zero = twice(b.zero);
    if (b.second == Second::sub_min) {
      const float min = ptx::f32_of_f16(static_cast<uint16_t>(bits.super_min));
      g.offset = twice(-min * static_cast<float>(bits.second) * unit);
    }
    return g;
  }
  g.scale = twice(scale_value(b.scale_type, bits.scale) * factor);
  g.zero = twice(b.zero);
  if (b.second == Second::min) g.offset = twice(scale_value(b.scale_type, bits.second) * unit);
  if (b.second == Second::zero_point) g.zero = twice(scale_value(b.scale_type, bits.second) + b.zero_shift);
  if constexpr (Codes::kTable) {
    const uint32_t last = static_cast<uint32_t>(b.tables) - 1;
    if (b.second == Second::table_number) {
      g.offset = (bits.second < last ? bits.second : last) * Codes::kTableBytes;
    }
  }
  return g;
}

// Bytes of a scale in a record.
__device__ __forceinline__ bool has_byte_scales(const FragmentWeights& b) {
  return b.super_bytes != 0 || b.scale_type > kScaleBf16;
}

}  // namespace bitloom::cuda
