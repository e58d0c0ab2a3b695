// Scales of layout fragments: from the bits of a record to what decoders take.
#pragma once

#include "decode.cuh"

namespace bitloom::cuda {

using gemm::Second;

// bl_scale_dtype, as the ABI numbers them (checked by host code).
constexpr int kScaleF16 = 1, kScaleBf16 = 2, kScaleE8m0 = 64;

__device__ __forceinline__ float e8m0_value(uint32_t bits) {
  return __uint_as_float(bits == 255 ? 0x7fc00000u : bits == 0 ? 0x00400000u : bits << 23);
}
__device__ __forceinline__ float e4m3_value(uint32_t bits) {  // without its sign: f16 with another bias
  const uint32_t code = bits & 0x7f;
  const float value = 256 * ptx::f32_of_f16(static_cast<uint16_t>(code << 7));
  return code == 0x7f ? __uint_as_float(0x7fc00000u) : value;
}

// Stored scales or zero points of 1 or 2 bytes. The type is the same for a whole launch: one branch for all of them.
template <int kCount>
__device__ __forceinline__ void scale_values(int type, const uint32_t (&bits)[kCount], float (&values)[kCount]) {
  if (type == kScaleF16) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = ptx::f32_of_f16(static_cast<uint16_t>(bits[i]));
  } else if (type == kScaleBf16) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = __uint_as_float(bits[i] << 16);
  } else if (type == kScaleE8m0) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = e8m0_value(bits[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = e4m3_value(bits[i]);
  }
}
__device__ __forceinline__ uint32_t twice(float x) { return ptx::f16x2_of(x, x); }

// Bits of some columns' parts of records, and of their super records.
template <int kCount>
struct GroupBits {
  uint32_t scale[kCount], second[kCount], super_scale[kCount], super_min[kCount];
};

// The lane's copy of the pair tables, as GroupScale::offset has it.
template <class Codes>
__device__ __forceinline__ uint32_t table_copy(int lane) {
  if constexpr (Codes::kTable) return lane % Codes::kCopies * 4;
  return 0;
}

template <class Codes, int kCount>
__device__ __forceinline__ void group_scales(const FragmentWeights& b, float unit, const GroupBits<kCount>& bits,
                                             GroupScale (&g)[kCount]) {
  if constexpr (Codes::kScalesSums) {  // f32, of plain scales
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float scale = b.scale_type == kScaleF16 ? ptx::f32_of_f16(static_cast<uint16_t>(bits.scale[i]))
                                                    : __uint_as_float(bits.scale[i] << 16);
      g[i] = {__float_as_uint(scale), 0, 0};
    }
    return;
  }
  if constexpr (Codes::kByteScales) {  // exact in bf16; only elements of 4 bits have any but e8m0
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const bool e4m3 = Codes::kWords == 4 && b.scale_type != kScaleE8m0;
      const float scale = e4m3 ? e4m3_value(bits.scale[i]) : e8m0_value(bits.scale[i]);
      g[i] = {ptx::bf16x2_of(scale, scale), 0, 0};
    }
    return;
  }
  if constexpr (Codes::kPlainScale) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      g[i] = {b.scale_type == kScaleF16 ? bits.scale[i] * 0x00010001u
                                        : twice(__uint_as_float(bits.scale[i] << 16) * unit),
              0, 0};
    }
    return;
  }
  const uint32_t zero = twice(b.zero);
  const float factor = b.factor * unit;
  float scale[kCount], second[kCount];
  if (b.super_bytes != 0) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float super = ptx::f32_of_f16(static_cast<uint16_t>(bits.super_scale[i])) * factor;
      const float min = ptx::f32_of_f16(static_cast<uint16_t>(bits.super_min[i])) * -unit;
      g[i] = {twice(super * (static_cast<float>(bits.scale[i]) - b.sub_zero)),
              twice(min * static_cast<float>(bits.second[i])), zero};
    }
    return;
  }
  scale_values(b.scale_type, bits.scale, scale);
#pragma unroll
  for (int i = 0; i < kCount; ++i) g[i] = {twice(scale[i] * factor), 0, zero};
  if constexpr (Codes::kTable) {
    if (b.second == Second::none) return;
    const uint32_t last = static_cast<uint32_t>(b.tables) - 1;
#pragma unroll
    for (int i = 0; i < kCount; ++i) g[i].offset = min(bits.second[i], last) * Codes::kTableBytes;
  } else {
    if (b.second == Second::none) return;
    scale_values(b.scale_type, bits.second, second);
    const bool is_min = b.second == Second::min;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (is_min) {
        g[i].offset = twice(second[i] * unit);
      } else {
        g[i].zero = twice(second[i] + b.zero_shift);
      }
    }
  }
}

// Bytes of a scale in a record.
__device__ __forceinline__ bool has_byte_scales(const FragmentWeights& b) {
  return b.super_bytes != 0 || b.scale_type > kScaleBf16;
}

}  // namespace bitloom::cuda
