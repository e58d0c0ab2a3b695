// The body of the SIMD kernels: attention in one pass over blocks of keys with a running softmax (Milakov
// and Gimelshein 2018; Dao et al. 2022). Included once inside each ISA region, after that level's Vec, exp,
// load_vec and transpose, and after scores.inl.
//
// A task's rows are its (query, head) pairs; all share the keys of one kv head. Per block of kBlock keys:
//   scores   rows x keys; few rows: dot products along the head dimension, keys converted in registers;
//            many rows: the block is first turned into panels of Vec::kLanes keys, [head_dim][kLanes], so
//            that a vector holds one channel of many keys and no sums across lanes are needed
//   softmax  new maximum m' of each row, weights exp(x - m'), old sums scaled by exp(m - m')
//   values   sums += weights x values, rows of a tile sharing each loaded value; many rows: the block's values
//            are first copied side by side in f32, since rows of a cache a power of two apart would take turns
//            in few sets of L1, and 16-bit values would be converted once per tile
// Seen keys of a row within a block are [lo, hi); where rows of a tile differ, only what all see is done
// together, so that a key that a row does not see never touches it, not even as 0 * NaN.

namespace {

// ---- softmax ----

// Turns a row's scores [lo, hi) into weights and brings its sums to the new maximum.
inline void weigh(Work& work, int64_t row) {
  float* scores = work.scores + row * kBlock;
  const float minus_infinity = -__builtin_inff();
  const int64_t end = padded(work.hi[row]);
  for (int64_t s = 0; s < work.lo[row]; ++s) scores[s] = minus_infinity;
  for (int64_t s = work.hi[row]; s < end; ++s) scores[s] = minus_infinity;
  Vec largest = Vec::set(minus_infinity);
  for (int64_t s = 0; s < end; s += kLanes) largest = max(largest, Vec::load(scores + s));
  const float old_maximum = work.row[row][0];
  const float block_maximum = largest.reduce_max();
  const float maximum = block_maximum > old_maximum ? block_maximum : old_maximum;
  // All scores so far are -infinity: weights of 0 rather than exp(-inf + inf).
  const float base = maximum == minus_infinity ? 0 : maximum;
  Vec total = Vec::set(0);
  for (int64_t s = 0; s < end; s += kLanes) {
    const Vec weight = exp(Vec::load(scores + s) - Vec::set(base));
    weight.store(scores + s);
    total = total + weight;
  }
  alignas(64) float factors[kLanes];
  exp(Vec::set(old_maximum - base)).store(factors);
  const float factor = factors[0];
  work.row[row][0] = maximum;
  work.row[row][1] = work.row[row][1] * factor + total.reduce_add();
  if (factor == 1) return;
  float* sums = work.sums + row * work.value_stride;
  for (int64_t i = 0; i < work.value_stride; i += kLanes) (Vec::load(sums + i) * Vec::set(factor)).store(sums + i);
}

// ---- values ----

// sums[row + r][column + ...] += weights[row + r][lo, hi) x values; `count` columns in the last vector when
// kTail.
template <int kRows, int kVecs, bool kTail, typename Values>
inline void add_tile(const Work& work, const Values& values, int64_t first_key, int64_t lo, int64_t hi, int64_t row,
                     int64_t column, int64_t count) {
  float* sums = work.sums + row * work.value_stride + column;
  const float* weights = work.scores + row * kBlock;
  Vec sum[kRows][kVecs];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kVecs; ++c) sum[r][c] = Vec::load(sums + r * work.value_stride + c * kLanes);
  }
  for (int64_t s = lo; s < hi; ++s) {
    Vec value[kVecs];
    for (int c = 0; c < kVecs; ++c) {
      value[c] = kTail ? values.load(first_key + s, column, count) : values.load(first_key + s, column + c * kLanes);
    }
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = Vec::set(weights[r * kBlock + s]);
      for (int c = 0; c < kVecs; ++c) sum[r][c] = fma(weight, value[c], sum[r][c]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kVecs; ++c) sum[r][c].store(sums + r * work.value_stride + c * kLanes);
  }
}

template <int kRows, typename Values>
inline void add_values(const Work& work, const Values& values, int64_t first_key, int64_t lo, int64_t hi, int64_t row,
                       int64_t value_dim) {
  if (lo >= hi) return;
  constexpr int kVecs = kRows >= 3 ? 2 : 8 / kRows;
  int64_t column = 0;
  for (; column + kVecs * kLanes <= value_dim; column += kVecs * kLanes) {
    add_tile<kRows, kVecs, false>(work, values, first_key, lo, hi, row, column, 0);
  }
  if constexpr (kVecs > 4) {
    for (; column + 4 * kLanes <= value_dim; column += 4 * kLanes) {
      add_tile<kRows, 4, false>(work, values, first_key, lo, hi, row, column, 0);
    }
  }
  for (; column + kLanes <= value_dim; column += kLanes) {
    add_tile<kRows, 1, false>(work, values, first_key, lo, hi, row, column, 0);
  }
  if (column < value_dim) {
    add_tile<kRows, 1, true>(work, values, first_key, lo, hi, row, column, value_dim - column);
  }
}

template <typename Values>
void accumulate(const Work& work, const Values& values, int64_t first_key, int64_t value_dim) {
  for_row_tiles(work.rows, [&](auto size, int64_t row) {
    int64_t lo = 0;
    int64_t hi = kBlock;
    for (int64_t r = row; r < row + size(); ++r) {
      lo = work.lo[r] > lo ? work.lo[r] : lo;
      hi = work.hi[r] < hi ? work.hi[r] : hi;
    }
    if (lo >= hi) lo = hi = kBlock;  // nothing in common: each row's keys all lie before
    add_values<size()>(work, values, first_key, lo, hi, row, value_dim);
    for (int64_t r = row; r < row + size(); ++r) {
      add_values<1>(work, values, first_key, work.lo[r], work.hi[r] < lo ? work.hi[r] : lo, r, value_dim);
      add_values<1>(work, values, first_key, work.lo[r] > hi ? work.lo[r] : hi, work.hi[r], r, value_dim);
    }
  });
}

template <typename Values>
CopiedValues copy_values(const Work& work, const Values& values, int64_t first_key, int64_t count, int64_t value_dim) {
  for (int64_t s = 0; s < count; ++s) {
    float* copy = work.copies + s * work.value_stride;
    int64_t i = 0;
    for (; i + kLanes <= value_dim; i += kLanes) values.load(first_key + s, i).store(copy + i);
    if (i < value_dim) values.load(first_key + s, i, value_dim - i).store(copy + i);
  }
  return {work.copies, work.value_stride};
}

// ---- task ----

void load_queries(const AttentionCall& call, const AttentionTask& task, const Work& work) {
  int64_t row = 0;
  for (int64_t t = task.query_begin; t < task.query_end; ++t) {
    for (int64_t head = task.head_begin; head < task.head_end; ++head, ++row) {
      float* query = work.query + row * work.query_stride;
      const int64_t offset = t * call.q.strides[0] + head * call.q.strides[1];
      const int64_t bytes = call.q.dtype == BL_DTYPE_f32 ? 4 : 2;
      load_values(call.q.dtype, static_cast<const uint8_t*>(call.q.data) + offset * bytes, 1, call.head_dim, query);
      for (int64_t i = 0; i < call.head_dim; ++i) query[i] *= call.scale;
      for (int64_t i = call.head_dim; i < work.query_stride; ++i) query[i] = 0;
    }
  }
}

void store_rows(const AttentionCall& call, const AttentionTask& task, const Work& work) {
  int64_t row = 0;
  for (int64_t t = task.query_begin; t < task.query_end; ++t) {
    for (int64_t head = task.head_begin; head < task.head_end; ++head, ++row) {
      float* sums = work.sums + row * work.value_stride;
      for (int64_t i = 0; i < call.value_dim; ++i) sums[i] /= work.row[row][1];
      const int64_t offset = t * call.output.strides[0] + head * call.output.strides[1];
      const int64_t bytes = call.output.dtype == BL_DTYPE_f32 ? 4 : 2;
      store_values(call.output.dtype, static_cast<uint8_t*>(call.output.data) + offset * bytes,
                   call.output.strides[2], call.value_dim, sums);
    }
  }
}

template <int32_t kType>
void attend(const AttentionCall& call, const AttentionTask& task, uint8_t* memory) {
  Work work(call, task, memory);
  const int64_t kv_head = task.head_begin / call.group();
  const int64_t heads = task.head_end - task.head_begin;
  const Source<kType> keys(call.k, kv_head);
  const Source<kType> values(call.v, kv_head);
  load_queries(call, task, work);
  for (int64_t row = 0; row < work.rows; ++row) {
    work.row[row][0] = -__builtin_inff();
    work.row[row][1] = 0;
    for (int64_t i = 0; i < work.value_stride; ++i) work.sums[row * work.value_stride + i] = 0;
  }
  const int64_t begin = call.first_key(task.query_begin);
  const int64_t end = call.last_key(task.query_end - 1);
  for (int64_t first = begin; first < end; first += kBlock) {
    const int64_t count = end - first < kBlock ? end - first : kBlock;
    score(work, keys, first, count, call.head_dim);
    for (int64_t row = 0; row < work.rows; ++row) {
      const int64_t t = task.query_begin + row / heads;
      const int64_t lo = call.first_key(t) - first;
      const int64_t hi = call.last_key(t) - first;
      work.lo[row] = lo < 0 ? 0 : lo;
      work.hi[row] = hi > count ? count : hi;
      if (work.lo[row] < work.hi[row]) weigh(work, row);
    }
    if (work.many_rows()) {
      accumulate(work, copy_values(work, values, first, count, call.value_dim), 0, work.value_stride);
    } else {
      accumulate(work, values, first, call.value_dim);
    }
  }
  store_rows(call, task, work);
}

}  // namespace

void attention(const AttentionCall& call, const AttentionTask& task, uint8_t* memory) {
  if (call.k.dtype == BL_DTYPE_f32) return attend<BL_DTYPE_f32>(call, task, memory);
  if (call.k.dtype == BL_DTYPE_f16) return attend<BL_DTYPE_f16>(call, task, memory);
  attend<BL_DTYPE_bf16>(call, task, memory);
}

uint64_t attention_scratch_bytes(const AttentionCall& call, int64_t rows) {
  const int64_t query_stride = padded(call.head_dim);
  const int64_t value_stride = padded(call.value_dim);
  const int64_t turned = rows >= kPanelRows ? kBlock * (call.head_dim + value_stride) : 0;
  return static_cast<uint64_t>(rows * (query_stride + value_stride + kBlock) + turned) * sizeof(float);
}
