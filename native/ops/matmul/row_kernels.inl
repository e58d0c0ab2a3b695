// The row kernels over Vec, one text for all vector levels (contract: row_kernels.h). Included inside a region
// after simd_<level>.h, simd_math.inl and the level's own encode_vec, gather and sign_word.

static void scale_row(float* x, const float* scales, float factor, int64_t count) {
  const Vec f = Vec::set(factor);
  if (scales == nullptr) {
    for_each_vec(count, [=](int64_t i, auto part) { part.store(x + i, part.load(x + i) * f); });
    return;
  }
  for_each_vec(count,
               [=](int64_t i, auto part) { part.store(x + i, part.load(x + i) * part.load(scales + i) * f); });
}

// f32 within blocks of kSumBlock, two accumulators per row, so that a lane adds at most 64 terms; double between.
static void dot4_rows(const float* x, const float* y, int64_t stride, int64_t count, float* sums) {
  double totals[4] = {};
  for (int64_t begin = 0; begin < count; begin += kSumBlock) {
    const int64_t end = count - begin < kSumBlock ? count : begin + kSumBlock;
    Vec even[4], odd[4];
    for (int j = 0; j < 4; ++j) even[j] = odd[j] = Vec::set(0);
    int64_t i = begin;
    for (; i + 2 * Vec::kLanes <= end; i += 2 * Vec::kLanes) {
      const Vec first = Vec::load(x + i), second = Vec::load(x + i + Vec::kLanes);
      for (int j = 0; j < 4; ++j) {
        even[j] = fma(first, Vec::load(y + j * stride + i), even[j]);
        odd[j] = fma(second, Vec::load(y + j * stride + i + Vec::kLanes), odd[j]);
      }
    }
    for (; i < end; i += Vec::kLanes) {
      const int64_t n = end - i < Vec::kLanes ? end - i : Vec::kLanes;
      const bool whole = n == Vec::kLanes;
      const Vec first = whole ? Vec::load(x + i) : Vec::load_first(x + i, n, 0);
      for (int j = 0; j < 4; ++j) {
        const float* row = y + j * stride + i;
        even[j] = fma(first, whole ? Vec::load(row) : Vec::load_first(row, n, 0), even[j]);
      }
    }
    for (int j = 0; j < 4; ++j) totals[j] += static_cast<double>((even[j] + odd[j]).reduce_add());
  }
  for (int j = 0; j < 4; ++j) sums[j] = static_cast<float>(totals[j]);
}

// The terms are added among themselves first, so that their order does not depend on what stands in values.
static void add_products_rows(const float* up, int64_t stride, const float* t, int64_t rank, float* values,
                              int64_t count) {
  for_each_vec(count, [=](int64_t i, auto part) {
    Vec sum = Vec::set(0);
    for (int64_t r = 0; r < rank; ++r) sum = fma(Vec::set(t[r]), part.load(up + r * stride + i), sum);
    part.store(values + i, part.load(values + i) + sum);
  });
}

static float sparse_dot_row(const float* x, const int32_t* columns, const float* values, int64_t count) {
  Vec sum = Vec::set(0);
  int64_t i = 0;
  for (; i + Vec::kLanes <= count; i += Vec::kLanes) sum = fma(gather(x, columns + i), Vec::load(values + i), sum);
  // Lanes that are not there give 0 * 0, not 0 * x.
  if (i < count) sum = fma(gather_first(x, columns + i, count - i), Vec::load_first(values + i, count - i, 0), sum);
  return sum.reduce_add();
}

static float largest_of(const float* x, int64_t count) {
  Vec most = Vec::set(0), zeros = Vec::set(0);
  for_each_vec(count, [&](int64_t i, auto part) {
    const Vec value = part.load(x + i);
    most = max(most, abs(value));
    zeros = fma(value, Vec::set(0), zeros);  // NaN once a value is not finite
  });
  const float nan = zeros.reduce_add();
  return nan == 0 ? most.reduce_max() : nan;
}

static void encode_row(const float* x, float factor, int64_t count, int8_t* codes) {
  const Vec f = Vec::set(factor), limit = Vec::set(127.0f), least = Vec::set(-127.0f);
  int64_t i = 0;
  for (; i + Vec::kLanes <= count; i += Vec::kLanes) {
    encode_vec(max(least, min(limit, Vec::load(x + i) * f)), codes + i);
  }
  if (i == count) return;
  int8_t rest[Vec::kLanes];
  encode_vec(max(least, min(limit, Vec::load_first(x + i, count - i, 0) * f)), rest);
  for (int64_t j = 0; i + j < count; ++j) codes[i + j] = rest[j];
}

static float signs_of(const float* x, int64_t count, uint32_t* words) {
  float sums[16] = {};
  int64_t i = 0;
  for (; i + 32 <= count; i += 32) {
    for (int j = 0; j < 16; ++j) sums[j] += __builtin_fabsf(x[i + j]);
    for (int j = 0; j < 16; ++j) sums[j] += __builtin_fabsf(x[i + 16 + j]);
    words[i / 32] = sign_word(x + i);
  }
  if (i < count) {
    float rest[32];
    for (int j = 0; j < 32; ++j) rest[j] = i + j < count ? x[i + j] : -1.0f;
    words[i / 32] = sign_word(rest);
    for (int64_t j = 0; i + j < count; ++j) sums[j % 16] += __builtin_fabsf(rest[j]);
  }
  for (int half = 8; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) sums[j] += sums[j + half];
  }
  return count == 0 ? 0 : sums[0] / static_cast<float>(count);
}

const RowKernels kRowKernels = {scale_row,      dot4_rows,  add_products_rows, sparse_dot_row,
                                       largest_of,     encode_row, signs_of};
