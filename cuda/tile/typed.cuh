// Loads and stores of f32, f16 and bf16 elements as f32. The type is a run-time number, the same for a whole launch:
// its branch is uniform and costs little beside the memory access. Loads come in two halves, bits and conversion, so
// that the bits of several operands are under way together.
#pragma once

#include "../../native/include/bitloom.h"
#include "../ptx/convert_halves.cuh"
#include "view.h"

namespace bitloom::cuda {

// 8 elements: 16 bytes of the short types, 32 of f32.
constexpr int kVector = 8;
struct Raw {
  uint4 low, high;  // high: f32 only
};

__device__ __forceinline__ const char* element_at(const void* data, int32_t dtype, int64_t element) {
  return static_cast<const char*>(data) + element * (dtype == BL_DTYPE_f32 ? 4 : 2);
}
__device__ __forceinline__ char* element_at(void* data, int32_t dtype, int64_t element) {
  return static_cast<char*>(data) + element * (dtype == BL_DTYPE_f32 ? 4 : 2);
}

__device__ __forceinline__ float bf16_value(uint32_t bits) { return __uint_as_float(bits << 16); }

// The element at a multiple of 8 elements of memory aligned to 16 bytes.
__device__ __forceinline__ Raw load_raw(int32_t dtype, const void* data, int64_t element) {
  const uint4* at = reinterpret_cast<const uint4*>(element_at(data, dtype, element));
  Raw raw;
  raw.low = at[0];
  raw.high = dtype == BL_DTYPE_f32 ? at[1] : make_uint4(0, 0, 0, 0);
  return raw;
}

__device__ __forceinline__ void unpack(int32_t dtype, const Raw& raw, float (&values)[kVector]) {
  const uint32_t words[8] = {raw.low.x,  raw.low.y,  raw.low.z,  raw.low.w,
                             raw.high.x, raw.high.y, raw.high.z, raw.high.w};
  if (dtype == BL_DTYPE_f32) {
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = __uint_as_float(words[i]);
  } else if (dtype == BL_DTYPE_f16) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values[2 * i] = ptx::cvt_f32_f16(static_cast<uint16_t>(words[i]));
      values[2 * i + 1] = ptx::cvt_f32_f16(static_cast<uint16_t>(words[i] >> 16));
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values[2 * i] = __uint_as_float(words[i] << 16);
      values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  }
}

__device__ __forceinline__ void load_vector(int32_t dtype, const void* data, int64_t element,
                                            float (&values)[kVector]) {
  unpack(dtype, load_raw(dtype, data, element), values);
}

__device__ __forceinline__ void store_vector(int32_t dtype, void* data, int64_t element,
                                             const float (&values)[kVector]) {
  uint4* at = reinterpret_cast<uint4*>(element_at(data, dtype, element));
  if (dtype == BL_DTYPE_f32) {
    at[0] = make_uint4(__float_as_uint(values[0]), __float_as_uint(values[1]), __float_as_uint(values[2]),
                       __float_as_uint(values[3]));
    at[1] = make_uint4(__float_as_uint(values[4]), __float_as_uint(values[5]), __float_as_uint(values[6]),
                       __float_as_uint(values[7]));
  } else if (dtype == BL_DTYPE_f16) {
    at[0] = make_uint4(ptx::cvt_f16x2_f32(values[1], values[0]), ptx::cvt_f16x2_f32(values[3], values[2]),
                       ptx::cvt_f16x2_f32(values[5], values[4]), ptx::cvt_f16x2_f32(values[7], values[6]));
  } else {
    at[0] = make_uint4(ptx::cvt_bf16x2_f32(values[1], values[0]), ptx::cvt_bf16x2_f32(values[3], values[2]),
                       ptx::cvt_bf16x2_f32(values[5], values[4]), ptx::cvt_bf16x2_f32(values[7], values[6]));
  }
}

__device__ __forceinline__ float load_element(int32_t dtype, const void* data, int64_t element) {
  const char* at = element_at(data, dtype, element);
  if (dtype == BL_DTYPE_f32) return *reinterpret_cast<const float*>(at);
  const uint16_t bits = *reinterpret_cast<const uint16_t*>(at);
  return dtype == BL_DTYPE_f16 ? ptx::cvt_f32_f16(bits) : bf16_value(bits);
}

__device__ __forceinline__ void store_element(int32_t dtype, void* data, int64_t element, float value) {
  char* at = element_at(data, dtype, element);
  if (dtype == BL_DTYPE_f32) {
    *reinterpret_cast<float*>(at) = value;
  } else {
    *reinterpret_cast<uint16_t*>(at) = dtype == BL_DTYPE_f16 ? ptx::cvt_f16_f32(value) : ptx::cvt_bf16_f32(value);
  }
}

// The element at which row `row` of an operand begins. Fewer than 2^31 rows (plan_rows): divisions of 64 bits cost a
// hundred instructions.
__device__ __forceinline__ int64_t row_offset(const RowSpace& rows, const Operand& operand, int64_t row) {
  int64_t offset = 0;
  uint32_t rest = static_cast<uint32_t>(row);
#pragma unroll 1
  for (int32_t axis = rows.outer_rank - 1; axis > 0; --axis) {
    const uint32_t size = static_cast<uint32_t>(rows.outer_shape[axis]);
    offset += rest % size * operand.outer_strides[axis];
    rest /= size;
  }
  if (rows.outer_rank > 0) offset += rest * operand.outer_strides[0];
  return offset;
}
__device__ __forceinline__ char* row_at(const RowSpace& rows, const Operand& operand, int64_t row) {
  return element_at(operand.data, operand.dtype, row_offset(rows, operand, row));
}

}  // namespace bitloom::cuda
