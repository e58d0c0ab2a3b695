// Vector kernel of softmax, one text for all vector levels; see kernel.h for the contract. Three passes:
// the maximum, the exponentials with their sum, the division.

namespace {

// Exponentials summed in f32 before they go to double: at most 32 in each lane.
constexpr int64_t kBlock = 256;

}  // namespace

void softmax_f32(const float* x, float* output, int64_t count, float scale) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Vec sign = Vec::set(scale < 0 ? -1.0f : 1.0f);
  const Vec magnitude = Vec::set(std::fabs(scale));
  // max gives its second argument where either is NaN: a NaN is dropped here and comes back through exp.
  Vec largest = Vec::set(-kInfinity);
  const float lowest = scale < 0 ? kInfinity : -kInfinity;
  for_each_vec(count, [&](int64_t i, auto part) { largest = max(sign * part.load(x + i, lowest), largest); });
  const Vec max_x = Vec::set(largest.reduce_max());
  double sum = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    Vec block = Vec::set(0.0f);
    for_each_vec(count - begin < kBlock ? count - begin : kBlock, [&](int64_t i, auto part) {
      // Lanes past the end are -infinity: exp gives 0, unless the maximum is not finite and all is NaN.
      const Vec e = exp((sign * part.load(x + begin + i, lowest) - max_x) * magnitude);
      part.store(output + begin + i, e);
      block = block + e;
    });
    sum += static_cast<double>(block.reduce_add());
  }
  const Vec inverse = Vec::set(static_cast<float>(1.0 / sum));
  for_each_vec(count, [=](int64_t i, auto part) { part.store(output + i, part.load(output + i) * inverse); });
}
