// add_weights of scores.h, one text for all vector levels: plain loops that the compiler turns into vectors of the region's
// level. No sums across lanes, so that all levels give the same bits.

namespace {

// ln p of p in [0, 1] to a relative error of 2.6 * 2^-24 (found over every 7th f32 from 2^-126 on; less than that: -88 at
// most). p = 2^e m with m in [sqrt(1/2), sqrt(2)), ln m = 2 artanh t, t = (m - 1) / (m + 1): series to t^9, off by 2e-9.
// Of NaN some number.
inline float log_of(float p) {
  constexpr uint32_t kSqrtHalf = 0x3f3504f3;
  uint32_t bits;
  std::memcpy(&bits, &p, sizeof(bits));
  const int32_t e = static_cast<int32_t>(bits - kSqrtHalf) >> 23;
  bits -= static_cast<uint32_t>(e) << 23;
  float m;
  std::memcpy(&m, &bits, sizeof(m));
  const float t = (m - 1) / (m + 1);
  const float u = t * t;
  const float rest = t * u * (0.666666667f + u * (0.4f + u * (0.285714286f + u * 0.222222222f)));
  return static_cast<float>(e) * 0.693147181f + (2 * t + rest);
}

}  // namespace

void add_weights(const float* weights, int64_t count, double* sums, double* squares, double* logs) {
  for (int64_t s = 0; s < count; ++s) sums[s] += static_cast<double>(weights[s]);
  for (int64_t s = 0; s < count; ++s) {
    squares[s] += static_cast<double>(weights[s]) * static_cast<double>(weights[s]);
  }
  if (logs == nullptr) return;
  for (int64_t s = 0; s < count; ++s) {
    logs[s] += static_cast<double>(weights[s]) * static_cast<double>(log_of(weights[s]));
  }
}
