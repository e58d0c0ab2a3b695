// Vector kernels of the norms, one text for all vector levels; see kernel.h for the contract.

namespace {

// Mean squares outside these bounds, and NaN, are for the scalar kernel, which computes in double. Below the
// first, squares of f32 lose bits that matter (the smallest normal is 1.2e-38); beyond the second they
// overflow.
constexpr double kSmallest = 1e-30;
constexpr double kLargest = 1e37;

}  // namespace

void rms_norm_f32(const float* x, const float* weight, const float* bias, float* output, int64_t count,
                  float epsilon) {
  const double sum = sum_of(x, count, 0.0f, [](Vec total, Vec value) { return fma(value, value, total); });
  const double mean = sum / static_cast<double>(count) + static_cast<double>(epsilon);
  if (!(mean > kSmallest && mean < kLargest)) {
    scalar::rms_norm_f32(x, weight, bias, output, count, epsilon);
    return;
  }
  const Vec scale = Vec::set(static_cast<float>(1.0 / std::sqrt(mean)));
  for_each_vec(count, [=](int64_t i, auto part) {
    Vec value = part.load(x + i) * scale;
    if (weight != nullptr) value = value * part.load(weight + i);
    part.store(output + i, value);
  });
}

void layer_norm_f32(const float* x, const float* weight, const float* bias, float* output, int64_t count,
                    float epsilon) {
  const double n = static_cast<double>(count);
  const float center =
      static_cast<float>(sum_of(x, count, 0.0f, [](Vec total, Vec v) { return total + v; }) / n);
  // d = x - center is exact where x is near center, so that what center lacks of the mean is seen in the
  // mean of d: no cancellation even where |mean| is much larger than the deviation.
  const Vec c = Vec::set(center);
  const double shift = sum_of(x, count, center, [=](Vec total, Vec v) { return total + (v - c); }) / n;
  const double square =
      sum_of(x, count, center, [=](Vec total, Vec v) { return fma(v - c, v - c, total); }) / n;
  const double variance = square - shift * shift;
  const double spread = variance + static_cast<double>(epsilon);
  if (!(spread > kSmallest && square < kLargest && variance >= 0.5 * square)) {
    scalar::layer_norm_f32(x, weight, bias, output, count, epsilon);
    return;
  }
  const Vec scale = Vec::set(static_cast<float>(1.0 / std::sqrt(spread)));
  const Vec rest = Vec::set(static_cast<float>(shift));
  for_each_vec(count, [=](int64_t i, auto part) {
    Vec value = ((part.load(x + i) - c) - rest) * scale;
    if (weight != nullptr) value = value * part.load(weight + i);
    if (bias != nullptr) value = value + part.load(bias + i);
    part.store(output + i, value);
  });
}
