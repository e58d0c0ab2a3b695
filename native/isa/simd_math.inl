// Loops and functions over Vec, one text for all vector levels. Included inside a region, after
// simd_<level>.h.

// Which part of a vector a loop's body works on: all lanes, or the first n.
struct Whole {
  static Vec load(const float* p, float = 0) { return Vec::load(p); }
  static void store(float* p, Vec value) { value.store(p); }
};
struct First {
  int64_t n;
  Vec load(const float* p, float fill = 0) const { return Vec::load_first(p, n, fill); }
  void store(float* p, Vec value) const { value.store_first(p, n); }
};

// body(i, part) for i = 0, kLanes, 2 kLanes, ... below count.
template <typename Body>
inline void for_each_vec(int64_t count, Body&& body) {
  int64_t i = 0;
  for (; i + Vec::kLanes <= count; i += Vec::kLanes) body(i, Whole{});
  if (i < count) body(i, First{count - i});
}

// The sum of add(sum, x) over all x [count]. `fill` must add nothing. f32 within blocks of kSumBlock, each
// lane of four accumulators taking at most 32 terms: relative error at most 32 * 2^-24 = 2^-19 where all
// terms have one sign, in practice a tenth of it; double between blocks.
constexpr int64_t kSumBlock = 1024;
template <typename Add>
inline double sum_of(const float* x, int64_t count, float fill, Add&& add) {
  constexpr int64_t kLanes = Vec::kLanes;
  double total = 0;
  for (int64_t i = 0; i < count;) {
    const int64_t end = count - i < kSumBlock ? count : i + kSumBlock;
    Vec sums[4] = {Vec::set(0), Vec::set(0), Vec::set(0), Vec::set(0)};
    for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
      for (int j = 0; j < 4; ++j) sums[j] = add(sums[j], Vec::load(x + i + j * kLanes));
    }
    for (; i + kLanes <= end; i += kLanes) sums[0] = add(sums[0], Vec::load(x + i));
    if (i < end) sums[0] = add(sums[0], Vec::load_first(x + i, end - i, fill));
    i = end;
    total += static_cast<double>(((sums[0] + sums[1]) + (sums[2] + sums[3])).reduce_add());
  }
  return total;
}

// exp(x), NaN for NaN, 0 below -104, infinity above 88.73. x = n ln 2 + r, |r| <= ln 2 / 2, ln 2 in two
// parts so that n ln 2 is exact to 2^-41; exp(r) = 1 + r + r^2 P(r), P the minimax polynomial of degree 4
// (Lawson iteration on Chebyshev nodes; error 3.1e-9). Largest relative error found, over every 499th f32
// whose result is a normal number: 1.35 * 2^-24.
inline Vec exp(Vec x) {
  // In this order, so that a NaN x stays: max and min give their second argument then.
  x = min(Vec::set(89.0f), max(Vec::set(-104.0f), x));
  const Vec n = round_even(x * Vec::set(1.44269504f));
  Vec r = fnma(n, Vec::set(0.693359375f), x);
  r = fnma(n, Vec::set(-2.12194440e-4f), r);
  Vec p = Vec::set(0.001381459878757596f);
  p = fma(p, r, Vec::set(0.008368716575205326f));
  p = fma(p, r, Vec::set(0.04166838899254799f));
  p = fma(p, r, Vec::set(0.1666652113199234f));
  p = fma(p, r, Vec::set(0.4999999403953552f));
  p = fma(r * r, p, r);
  return ldexp(p + Vec::set(1.0f), n);
}

// x / (1 + exp(-y)). For y < 0 as x exp(y) / (1 + exp(y)): exp(-y) would overflow where the result is still
// a number.
inline Vec times_sigmoid(Vec x, Vec y) {
  const Vec e = exp(Vec::set(0.0f) - abs(y));
  return if_negative(y, x * e, x) / (Vec::set(1.0f) + e);
}

// Phi(-u) for u >= 0, the upper tail of the normal distribution, to a relative error of 14 * 2^-24 (12.8
// found, near u = 13) down to where exp is subnormal (u = 13.2): exp(-u^2 / 2) t Q(t), t = 1 / (1 + 0.35 u).
// Q is the minimax polynomial of degree 8 for erfcx(u / sqrt(2)) / (2 t) on u in [0, 14.5] (Lawson iteration;
// error 3.2e-8). u^2 / 2 is kept in two parts, since exp turns its absolute error into a relative one.
inline Vec normal_tail(Vec u) {
  u = min(Vec::set(15.0f), u);
  const Vec half = u * Vec::set(-0.5f);
  const Vec square = half * u;
  const Vec rest = fma(half, u, Vec::set(0.0f) - square);
  const Vec t = Vec::set(1.0f) / fma(u, Vec::set(0.35f), Vec::set(1.0f));
  Vec q = Vec::set(-0.029157886281609535f);
  q = fma(q, t, Vec::set(0.14403091371059418f));
  q = fma(q, t, Vec::set(-0.2558389902114868f));
  q = fma(q, t, Vec::set(0.1593196988105774f));
  q = fma(q, t, Vec::set(-0.023212352767586708f));
  q = fma(q, t, Vec::set(0.10555250197649002f));
  q = fma(q, t, Vec::set(0.11982128769159317f));
  q = fma(q, t, Vec::set(0.139863520860672f));
  q = fma(q, t, Vec::set(0.139621302485466f));
  const Vec e = exp(square);
  return fma(e, rest, e) * (q * t);
}
