// The specification of the elementwise operators: in double, one rounding at the end; add and mul are f32.
#include <cmath>

#include "kernel.h"

namespace bitloom::scalar {

namespace {

// x * sigmoid(y). For y < 0 the exponential is taken of y, so that it can not overflow where the result is
// still a number: exp(y) / (1 + exp(y)) = 1 / (1 + exp(-y)).
double times_sigmoid(double x, double y) {
  const double e = std::exp(-std::fabs(y));
  return (y < 0 ? x * e : x) / (1 + e);
}

}  // namespace

void silu_f32(const float* left, const float*, float* output, int64_t count) {
  for (int64_t i = 0; i < count; ++i) output[i] = static_cast<float>(times_sigmoid(left[i], left[i]));
}

void gelu_erf_f32(const float* left, const float*, float* output, int64_t count) {
  // Phi(x) = erfc(-x / sqrt(2)) / 2, which unlike (1 + erf) / 2 has no cancellation for negative x.
  constexpr double kSqrtHalf = 0.70710678118654752440;
  for (int64_t i = 0; i < count; ++i) {
    const double x = left[i];
    output[i] = static_cast<float>(0.5 * x * std::erfc(-x * kSqrtHalf));
  }
}

void gelu_tanh_f32(const float* left, const float*, float* output, int64_t count) {
  // (1 + tanh(z)) / 2 = sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x^3).
  constexpr double kTwoSqrt2OverPi = 1.59576912160573071176;
  for (int64_t i = 0; i < count; ++i) {
    const double x = left[i];
    output[i] = static_cast<float>(times_sigmoid(x, kTwoSqrt2OverPi * (x + 0.044715 * x * x * x)));
  }
}

void swiglu_f32(const float* left, const float* right, float* output, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    output[i] = static_cast<float>(times_sigmoid(left[i], left[i]) * right[i]);
  }
}

void add_f32(const float* left, const float* right, float* output, int64_t count) {
  for (int64_t i = 0; i < count; ++i) output[i] = left[i] + right[i];
}

void mul_f32(const float* left, const float* right, float* output, int64_t count) {
  for (int64_t i = 0; i < count; ++i) output[i] = left[i] * right[i];
}

}  // namespace bitloom::scalar
