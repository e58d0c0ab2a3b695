// The specification of rope's rotation.
#include "kernel.h"

namespace bitloom::scalar {

void rope_half(const float* x, const float* cosine, const float* sine, int64_t pairs, float* y) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = x[i];
    const float b = x[i + pairs];
    y[i] = a * cosine[i] - b * sine[i];
    y[i + pairs] = a * sine[i] + b * cosine[i];
  }
}

void rope_interleaved(const float* x, const float* cosine, const float* sine, int64_t pairs, float* y) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = x[2 * i];
    const float b = x[2 * i + 1];
    y[2 * i] = a * cosine[i] - b * sine[i];
    y[2 * i + 1] = a * sine[i] + b * cosine[i];
  }
}

}  // namespace bitloom::scalar
