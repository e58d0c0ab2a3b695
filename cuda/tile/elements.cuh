// Single elements of tensors whose type is known at run time only.
#pragma once

#include <cstdint>

#include "../../native/include/bitloom.h"
#include "../ptx/bits.cuh"

namespace bitloom::cuda {

// Element `index` of f32, f16 or bf16 data.
__device__ __forceinline__ float load_float(int32_t dtype, const void* data, int64_t index) {
  if (dtype == BL_DTYPE_f32) return static_cast<const float*>(data)[index];
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  return dtype == BL_DTYPE_f16 ? ptx::f32_of_f16(bits) : __uint_as_float(static_cast<uint32_t>(bits) << 16);
}

// i8 too.
__device__ __forceinline__ float load_as_f32(int32_t dtype, const void* data, int64_t index) {
  if (dtype == BL_DTYPE_i8) return static_cast<float>(static_cast<const int8_t*>(data)[index]);
  return load_float(dtype, data, index);
}

// Rounded once, to nearest even. f32, f16, bf16.
__device__ __forceinline__ void store_from_f32(int32_t dtype, void* data, int64_t index, float value) {
  if (dtype == BL_DTYPE_f32) {
    static_cast<float*>(data)[index] = value;
  } else {
    const uint32_t pair = dtype == BL_DTYPE_f16 ? ptx::f16x2_of(value, 0) : ptx::bf16x2_of(value, 0);
    static_cast<uint16_t*>(data)[index] = static_cast<uint16_t>(pair);
  }
}

}  // namespace bitloom::cuda
