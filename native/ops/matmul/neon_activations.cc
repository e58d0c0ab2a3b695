// Activations to int8 at level neon; the same bits as scalar.cc.
#include <cmath>
#include <cstring>

#include "kernel.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../../isa/neon_begin.h"

void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales) {
  float padded[kGroup];
  for (int64_t begin = 0; begin < padded_k(k); begin += kGroup) {
    const float* group = x + begin;
    if (begin + kGroup > k) {
      std::memset(padded, 0, sizeof(padded));
      if (begin < k) std::memcpy(padded, group, static_cast<size_t>(k - begin) * sizeof(float));
      group = padded;
    }
    float32x4_t values[8];
    float32x4_t largest4 = vdupq_n_f32(0);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      values[i] = vld1q_f32(group + 4 * i);
      largest4 = vmaxq_f32(largest4, vabsq_f32(values[i]));  // NaN if either is
    }
    const float largest = vmaxvq_f32(largest4);
    const bool finite = largest <= 3.4028235e38f;
    const float inverse = !finite || largest < 1.5e-36f ? 0 : 127.0f / largest;
    scales[begin / kGroup] = finite ? (inverse == 0 ? 0 : largest / 127.0f) : NAN;
    int32x4_t q[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      q[i] = finite ? vcvtnq_s32_f32(vmulq_n_f32(values[i], inverse)) : vdupq_n_s32(0);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const int16x8_t low = vmovn_high_s32(vmovn_s32(q[4 * i]), q[4 * i + 1]);
      const int16x8_t high = vmovn_high_s32(vmovn_s32(q[4 * i + 2]), q[4 * i + 3]);
      vst1q_s8(codes + begin + 16 * i, vmovn_high_s16(vmovn_s16(low), high));
    }
  }
}

#include "../../isa/end.h"
#endif  // __aarch64__
