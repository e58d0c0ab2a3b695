// rope at level neon: 4 values at a time.
#include "kernel.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../../isa/neon_begin.h"

namespace {

struct Pair {
  float32x4_t a, b;
};
inline Pair rotate(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t s) {
  return {vsubq_f32(vmulq_f32(a, c), vmulq_f32(b, s)), vaddq_f32(vmulq_f32(a, s), vmulq_f32(b, c))};
}

}  // namespace

void rope_half(const float* x, const float* cosine, const float* sine, int64_t pairs, float* y) {
  int64_t i = 0;
  for (; i + 4 <= pairs; i += 4) {
    const Pair pair =
        rotate(vld1q_f32(x + i), vld1q_f32(x + i + pairs), vld1q_f32(cosine + i), vld1q_f32(sine + i));
    vst1q_f32(y + i, pair.a);
    vst1q_f32(y + i + pairs, pair.b);
  }
  for (; i < pairs; ++i) {
    const float a = x[i];
    const float b = x[i + pairs];
    y[i] = a * cosine[i] - b * sine[i];
    y[i + pairs] = a * sine[i] + b * cosine[i];
  }
}

void rope_interleaved(const float* x, const float* cosine, const float* sine, int64_t pairs, float* y) {
  int64_t i = 0;
  for (; i + 4 <= pairs; i += 4) {
    const float32x4x2_t ab = vld2q_f32(x + 2 * i);
    const Pair pair = rotate(ab.val[0], ab.val[1], vld1q_f32(cosine + i), vld1q_f32(sine + i));
    vst2q_f32(y + 2 * i, (float32x4x2_t{{pair.a, pair.b}}));
  }
  for (; i < pairs; ++i) {
    const float a = x[2 * i];
    const float b = x[2 * i + 1];
    y[2 * i] = a * cosine[i] - b * sine[i];
    y[2 * i + 1] = a * sine[i] + b * cosine[i];
  }
}

#include "../../isa/end.h"
#endif  // __aarch64__
