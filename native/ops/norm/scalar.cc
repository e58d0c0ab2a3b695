// The specification of the norms: sums, mean and variance in double, one rounding at the end.
#include <cmath>

#include "kernel.h"

namespace bitloom::scalar {

void rms_norm_f32(const float* x, const float* weight, const float*, float* output, int64_t count,
                  float epsilon) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
  const double scale = 1.0 / std::sqrt(sum / static_cast<double>(count) + static_cast<double>(epsilon));
  for (int64_t i = 0; i < count; ++i) {
    output[i] = static_cast<float>(x[i] * scale * (weight == nullptr ? 1.0 : weight[i]));
  }
}

void layer_norm_f32(const float* x, const float* weight, const float* bias, float* output, int64_t count,
                    float epsilon) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += x[i];
  const double mean = sum / static_cast<double>(count);
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(count) + static_cast<double>(epsilon));
  for (int64_t i = 0; i < count; ++i) {
    const double value = (x[i] - mean) * scale * (weight == nullptr ? 1.0 : weight[i]);
    output[i] = static_cast<float>(value + (bias == nullptr ? 0.0 : bias[i]));
  }
}

}  // namespace bitloom::scalar
