// kv_nearest_row for one level, over its Vec. Included inside a region, once.

// Four rows share each load of the query; their four sums are independent chains, which hides the latency of the
// multiply-adds (4 cycles) at two loads a multiply-add.
int64_t kv_nearest_row(const float* query, const float* rows, int64_t count, int64_t floats, float* best) {
  int64_t nearest = 0;
  float largest = -std::numeric_limits<float>::infinity();
  const auto take = [&](int64_t i, float product) {
    if (!(product > largest)) return;
    largest = product;
    nearest = i;
  };
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const float* row = rows + i * floats;
    Vec sum0 = Vec::set(0), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    for (int64_t c = 0; c < floats; c += Vec::kLanes) {
      const Vec q = Vec::load(query + c);
      sum0 = fma(q, Vec::load(row + c), sum0);
      sum1 = fma(q, Vec::load(row + floats + c), sum1);
      sum2 = fma(q, Vec::load(row + 2 * floats + c), sum2);
      sum3 = fma(q, Vec::load(row + 3 * floats + c), sum3);
    }
    take(i, sum0.reduce_add());
    take(i + 1, sum1.reduce_add());
    take(i + 2, sum2.reduce_add());
    take(i + 3, sum3.reduce_add());
  }
  for (; i < count; ++i) {
    Vec sum = Vec::set(0);
    for (int64_t c = 0; c < floats; c += Vec::kLanes) {
      sum = fma(Vec::load(query + c), Vec::load(rows + i * floats + c), sum);
    }
    take(i, sum.reduce_add());
  }
  *best = largest;
  return nearest;
}
