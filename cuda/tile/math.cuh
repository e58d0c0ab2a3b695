// Functions of one f32. Error in units of 2^-24 of the result, of exact ex2 and with the 2 ulp of hardware's: silu 10,
// gelu_erf 20, gelu_tanh 14 + 8 |u|, u = sqrt(8 / pi) (x + 0.044715 x^3), whose rounding exp amplifies. Where the
// exponential is subnormal, |x| * 2^-147 more.
#pragma once

#include <cstdint>

namespace bitloom::cuda {

// x * sigmoid(y). The exponential is of -|y|, so that it can't overflow where the result is still a number.
__device__ __forceinline__ float times_sigmoid(float x, float y) {
  const float e = expf(-fabsf(y));
  return (y < 0.0f ? x * e : x) / (1.0f + e);
}

__device__ __forceinline__ float silu(float x) { return times_sigmoid(x, x); }

// silu(x) y. A subnormal x loses bits by sigmoid's half before y brings it back, so y comes first there.
__device__ __forceinline__ float swiglu(float x, float y) {
  return fabsf(x) < 0x1p-126f ? x * y * 0.5f : silu(x) * y;
}

// x Phi(x), Phi(x) = erfc(z) / 2, z = -x / sqrt(2). In the tail erfc amplifies the rounding of z: what it lost comes
// back by erfc's logarithmic derivative, which is close to -2 z there.
__device__ __forceinline__ float gelu_erf(float x) {
  constexpr float kHigh = 0.70710677f;       // sqrt(1 / 2) rounded to f32
  constexpr float kLow = 1.21016175e-8f;     // and the rest
  const float z = -x * kHigh;
  const float lost = fmaf(-x, kLow, fmaf(-x, kHigh, -z));
  float tail = erfcf(z);
  if (z > 0.5f && z < 12.0f) tail = fmaf(tail, -2.0f * z * lost, tail);
  return 0.5f * x * tail;
}

// (1 + tanh(u)) / 2 = sigmoid(2 u)
__device__ __forceinline__ float gelu_tanh(float x) {
  constexpr float kTwoSqrt2OverPi = 1.59576912f;
  return times_sigmoid(x, kTwoSqrt2OverPi * fmaf(0.044715f * x * x, x, x));
}

}  // namespace bitloom::cuda
