// The specification of softmax: t, exp and the sum in double, one rounding at the end. exp is computed
// twice, so that nothing narrower than double is stored in between.
#include <cmath>
#include <limits>

#include "kernel.h"

namespace bitloom::scalar {

void softmax_f32(const float* x, float* output, int64_t count, float scale) {
  const double sign = scale < 0 ? -1 : 1;
  const double magnitude = std::fabs(static_cast<double>(scale));
  double max = -std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < count; ++i) {
    if (sign * x[i] > max) max = sign * x[i];
  }
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += std::exp(magnitude * (sign * x[i] - max));
  for (int64_t i = 0; i < count; ++i) {
    output[i] = static_cast<float>(std::exp(magnitude * (sign * x[i] - max)) / sum);
  }
}

}  // namespace bitloom::scalar
