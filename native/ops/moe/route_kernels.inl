// The router's kernels over Eight, eight lanes of double. Included inside a region, after the struct.

inline Eight exp_of(Eight x) {
  using namespace route_exp;
  const Eight bounded = max(x, Eight::set(kLeast));
  const Eight shifted = bounded * Eight::set(kLog2e) + Eight::set(kRounder);
  const Eight n = shifted - Eight::set(kRounder);
  const Eight r = (bounded - n * Eight::set(kLn2High)) - n * Eight::set(kLn2Low);
  Eight p = Eight::set(kTaylor[0]);
  for (int i = 1; i < 14; ++i) p = p * r + Eight::set(kTaylor[i]);
  return zero_below(x, kLeast, p * power_of_two(shifted));
}

double softmax_f64(const float* logits, int64_t count, float largest, double* score) {
  const Eight most = Eight::set(static_cast<double>(largest));
  Eight sums = Eight::set(0);
  for (int64_t e = 0; e < count; e += kRouteLanes) {
    const Eight s = exp_of(Eight::load(logits + e) - most);
    s.store(score + e);
    sums = sums + s;
  }
  alignas(64) double lanes[kRouteLanes];
  sums.store(lanes);
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

double sigmoid_f64(const float* logits, int64_t count, float, double* score) {
  const Eight one = Eight::set(1);
  for (int64_t e = 0; e < count; e += kRouteLanes) {
    const Eight z = Eight::load(logits + e);
    const Eight power = exp_of(minus_abs(z));
    (if_negative(z, power, one) / (one + power)).store(score + e);
  }
  return 0;
}
