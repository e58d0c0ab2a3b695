// The specification of the router's kernels: plain C++.
#include <cstring>

#include "route_kernel.h"

namespace bitloom::scalar {

namespace {

double exp_of(double x) {
  using namespace route_exp;
  if (x < kLeast) return 0;
  const double shifted = x * kLog2e + kRounder;
  const double n = shifted - kRounder;
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double p = kTaylor[0];
  for (int i = 1; i < 14; ++i) p = p * r + kTaylor[i];
  int64_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = static_cast<int64_t>((static_cast<uint64_t>(bits) + 1023) << 52);
  double power;
  std::memcpy(&power, &bits, sizeof(power));
  return p * power;
}

}  // namespace

double softmax_f64(const float* logits, int64_t count, float largest, double* score) {
  double sums[kRouteLanes] = {};
  for (int64_t e = 0; e < count; ++e) {
    score[e] = exp_of(static_cast<double>(logits[e]) - static_cast<double>(largest));
    sums[e % kRouteLanes] += score[e];
  }
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

double sigmoid_f64(const float* logits, int64_t count, float, double* score) {
  for (int64_t e = 0; e < count; ++e) {
    const double z = static_cast<double>(logits[e]);
    const double power = exp_of(z < 0 ? z : -z);
    score[e] = (z < 0 ? power : 1) / (1 + power);
  }
  return 0;
}

}  // namespace bitloom::scalar
