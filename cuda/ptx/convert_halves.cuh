// Conversions between f32 and the 16-bit floats, one instruction each; to nearest even, NaN becomes the quiet NaN.
#pragma once

#include <cstdint>

namespace bitloom::cuda::ptx {

__device__ __forceinline__ float cvt_f32_f16(uint16_t half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}
__device__ __forceinline__ uint16_t cvt_f16_f32(float value) {
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}
__device__ __forceinline__ uint16_t cvt_bf16_f32(float value) {
  uint16_t half;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}
// Two at once, `low` into the low half.
__device__ __forceinline__ uint32_t cvt_f16x2_f32(float high, float low) {
  uint32_t halves;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(halves) : "f"(high), "f"(low));
  return halves;
}
__device__ __forceinline__ uint32_t cvt_bf16x2_f32(float high, float low) {
  uint32_t halves;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(halves) : "f"(high), "f"(low));
  return halves;
}

}  // namespace bitloom::cuda::ptx
