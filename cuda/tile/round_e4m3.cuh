// Activations of compute e4m3: the CPU's numbers (native/ops/matmul/round_e4m3.h).
#pragma once

#include <cstdint>

namespace bitloom::cuda {

constexpr float kMostFloat = 3.4028234664e38f;

// |x|, infinite where it is not finite.
__device__ __forceinline__ float size_or_infinite(float x) {
  x = fabsf(x);
  return x <= kMostFloat ? x : __uint_as_float(0x7f800000u);
}

// The scale of numbers whose largest magnitude is `largest`, infinite if one is not finite: then NaN, and codes are 0.
struct Fp8Scale {
  float scale, inverse;

  // largest / 448; rows below 1.5e-36, where the inverse overflows, count as zero.
  __device__ static Fp8Scale of_row(float largest) {
    if (!(largest <= kMostFloat)) return {__uint_as_float(0x7fc00000u), 0};
    return largest >= 1.5e-36f ? Fp8Scale{largest / 448.0f, 448.0f / largest} : Fp8Scale{0, 0};
  }
  // The least power of two, of at least 2^-117, that brings them to at most 448 = 1.75 * 2^8.
  __device__ static Fp8Scale of_group(float largest) {
    if (!(largest <= kMostFloat)) return {__uint_as_float(0x7fc00000u), 0};
    const uint32_t bits = __float_as_uint(largest);
    const int exponent =
        max(static_cast<int>(bits >> 23) - 127 - 8 + ((bits & 0x7fffff) > 0x600000 ? 1 : 0), -117);
    return {__uint_as_float(static_cast<uint32_t>(127 + exponent) << 23),
            __uint_as_float(static_cast<uint32_t>(127 - exponent) << 23)};
  }
  // The e4m3 code nearest to x / scale.
  __device__ uint32_t code(float x) const {
    if (inverse == 0) return 0;
    const uint32_t bits = __float_as_uint(x * inverse), size = bits & 0x7fffffff;
    uint32_t code = (size - 0x3c000000u + 0x7ffffu + (size >> 20 & 1)) >> 20;
    // Below 2^-6 steps are 2^-9: those of f32 at 2^14.
    if (size < 0x3c800000u) code = __float_as_uint(__uint_as_float(size) + 16384.0f) - 0x46800000u;
    return min(code, 0x7eu) | (bits >> 24 & 0x80);
  }
};

// Of finite codes.
__device__ __forceinline__ float e4m3_of(uint32_t code) {
  const uint32_t size = code & 0x7f;
  const float value = size < 8 ? static_cast<float>(size) * 0x1p-9f : __uint_as_float((size + (120 << 3)) << 20);
  return __uint_as_float(__float_as_uint(value) | (code & 0x80) << 24);
}

// The largest of a warp's.
__device__ __forceinline__ float warp_largest(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, distance));
  return value;
}

}  // namespace bitloom::cuda
