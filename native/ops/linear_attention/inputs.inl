// Third part of the SIMD kernels' text: what the products of a chunk read. Rows of tokens are copied as f32,
// decays go into them, and what stands on the left of a product is turned, so that the kRows factors of a
// step lie side by side.

namespace {

// exp(x) for x >= -kForgotten, else 0; NaN for NaN. Weights of 2^-90 would add nothing to a sum that has any
// of the last tokens in it, but where they meet values below 2^-36 they make subnormal numbers, each of which
// costs about 150 cycles: decays of exp(-3) a token took 18 times as long with them.
constexpr float kForgotten = 62;
inline Vec decay_of(Vec x) {
  const Vec shifted = x + Vec::set(kForgotten);
  return if_negative(shifted, x - x, exp(max(Vec::set(-kForgotten), x)));
}

// exp(log d[to] - log d[from]) for kLanes tokens `to`, log d in two parts.
inline Vec shared_decay(const Work& work, int64_t to, int64_t from) {
  return decay_of((Vec::load(work.sum_high + to) - Vec::set(work.sum_high[from])) +
                  (Vec::load(work.sum_low + to) - Vec::set(work.sum_low[from])));
}

// turned[i][t] = factor * rows[t][i] for t in [0, count), a multiple of kLanes.
__attribute__((noinline)) void turn(const float* rows, int64_t row_stride, int64_t channels, int64_t count,
                                    float factor, float* turned, int64_t turned_stride) {
  for (int64_t t = 0; t < count; t += kLanes) {
    for (int64_t i = 0; i < channels; i += kLanes) {
      Vec square[kLanes];
      for (int64_t j = 0; j < kLanes; ++j) {
        square[j] = Vec::load(rows + (t + j) * row_stride + i) * Vec::set(factor);
      }
      transpose(square);
      const int64_t lanes = channels - i < kLanes ? channels - i : kLanes;
      for (int64_t j = 0; j < lanes; ++j) square[j].store(turned + (i + j) * turned_stride + t);
    }
  }
}

// What a chunk of n tokens from `first` on works with, `padded` tokens with those of zeros that make panels
// whole.
struct ChunkInputs {
  const LinearAttentionCall& call;
  const LinearAttentionTask& task;
  const Work& work;
  int64_t first, n, padded;

  ChunkInputs(const LinearAttentionCall& its_call, const LinearAttentionTask& its_task, const Work& its_work,
              int64_t t, int64_t tokens)
      : call(its_call),
        task(its_task),
        work(its_work),
        first(t),
        n(tokens),
        padded(rounded(rounded(tokens, kRows), kPanel)) {}

  bool per_channel() const { return call.kind == Decay::channel; }
  bool shared() const { return call.kind == Decay::head || call.kind == Decay::token; }

  // rows[t] = tensor[first + t, head] with zeros to the right and below.
  void load(const bl_tensor& tensor, int64_t head, int64_t column, int64_t count, float* rows,
            int64_t stride) const {
    for (int64_t t = 0; t < n; ++t) {
      call.load_row(tensor, first + t, head, column, count, rows + t * stride);
      fill(rows + t * stride + count, stride - count, 0);
    }
    fill(rows + n * stride, (padded - n) * stride, 0);
  }

  __attribute__((noinline)) void prepare() const {
    if (!per_channel()) prepare_shared();
    load(call.k, task.kv_head, 0, call.key_dim, work.key_rows, work.channels);
    load(call.v, task.kv_head, task.column_begin, task.columns(), work.updates, work.stride);
    for (int64_t t = 0; t < padded; ++t) work.beta[t] = t < n ? call.beta_of(first + t, task.kv_head) : 0;
    per_channel() ? turn_keys_by_channels() : turn_keys();
  }

  // Decays of the tokens that are there; those after them get the last one's, to be finite.
  void prepare_shared() const {
    for (int64_t t = n; t < padded; ++t) {
      work.sum_high[t] = work.sum_high[n - 1];
      work.sum_low[t] = work.sum_low[n - 1];
    }
    const Vec high = Vec::set(work.sum_high[n - 1]), low = Vec::set(work.sum_low[n - 1]);
    for (int64_t t = 0; t < padded; t += kLanes) {
      const Vec sum_high = Vec::load(work.sum_high + t), sum_low = Vec::load(work.sum_low + t);
      const Vec begin = decay_of(sum_high);
      fma(begin, sum_low, begin).store(work.from_begin + t);
      decay_of((high - sum_high) + (low - sum_low)).store(work.to_end + t);
    }
    fill(work.whole, work.channels, work.from_begin[n - 1]);
  }

  void turn_keys() const {
    turn(work.key_rows, work.channels, call.key_dim, padded, 1, work.turned_k, work.tokens);
    if (!shared()) return;
    const int64_t channels = work.channels;
    for (int64_t t = 0; t < n; ++t) {
      float* row = work.key_rows + t * channels;
      const Vec decay = Vec::set(work.to_end[t]);
      for (int64_t i = 0; i < channels; i += kLanes) (Vec::load(row + i) * decay).store(row + i);
    }
  }

  void turn_keys_by_channels() const {
    const int64_t channels = work.channels;
    const float* last = work.decays + (n - 1) * channels;
    std::memcpy(work.whole, last, static_cast<size_t>(channels) * sizeof(float));
    if (call.delta) {
      times_decays(work.key_rows, work.row_block);
      turn(work.row_block, channels, call.key_dim, padded, 1, work.decayed_k, work.tokens);
    }
    for (int64_t t = 0; t < n; ++t) {
      const float* decays = work.decays + t * channels;
      float* row = work.key_rows + t * channels;
      float* divided = work.row_block + t * channels;
      for (int64_t i = 0; i < channels; i += kLanes) {
        const Vec inverse = Vec::set(1) / Vec::load(decays + i);
        const Vec key = Vec::load(row + i);
        (key * inverse).store(divided + i);
        (key * (Vec::load(last + i) * inverse)).store(row + i);
      }
    }
    fill(work.row_block + n * work.channels, (padded - n) * work.channels, 0);
    turn(work.row_block, work.channels, call.key_dim, padded, 1, work.turned_k, work.tokens);
  }

  void times_decays(const float* rows, float* products) const {
    const float* decays = work.decays;
    for (int64_t i = 0; i < n * work.channels; i += kLanes) {
      (Vec::load(rows + i) * Vec::load(decays + i)).store(products + i);
    }
    fill(products + n * work.channels, (padded - n) * work.channels, 0);
  }

  __attribute__((noinline)) void prepare_query(int64_t head) const {
    load(call.q, head, 0, call.key_dim, work.row_block, work.channels);
    if (per_channel()) times_decays(work.row_block, work.row_block);
    turn(work.row_block, work.channels, call.key_dim, padded, call.scale, work.turned_q, work.tokens);
  }

  // Brings rows [t, t + kRows) near: of the next chunk's keys with panel 0 of the products, of its values
  // with panel 1, of its queries with 2, of this chunk's outputs with 3. Rows of one head lie pages apart,
  // where no processor sees them coming. always_inline, both: GCC drops calls of what only fetches.
  __attribute__((always_inline)) void fetch(int64_t head, int64_t panel, int64_t t) const {
    const int64_t next = first + n + t;
    const bool first_head = head == task.kv_head * call.group();
    for (; panel < 4; panel += work.columns / kPanel) {
      if (panel == 0 && first_head) fetch_rows<0>(call.k, task.kv_head, 0, call.key_dim, next);
      if (panel == 1 && first_head)
        fetch_rows<0>(call.v, task.kv_head, task.column_begin, task.columns(), next);
      if (panel == 2) fetch_rows<0>(call.q, head, 0, call.key_dim, next);
      if (panel == 3) fetch_rows<1>(call.output, head, task.column_begin, task.columns(), first + t);
    }
  }

  template <int kWrite>
  __attribute__((always_inline)) void fetch_rows(const bl_tensor& tensor, int64_t head, int64_t column, int64_t count,
                                                 int64_t t) const {
    const int64_t size = tensor.dtype == BL_DTYPE_f32 ? 4 : 2;
    for (int64_t i = t; i < t + kRows && i < task.token_end; ++i) {
      const uint8_t* row = static_cast<const uint8_t*>(tensor.data) +
                           (i * tensor.strides[0] + head * tensor.strides[1] + column) * size;
      for (int64_t byte = 0; byte < count * size; byte += 64) __builtin_prefetch(row + byte, kWrite, 2);
    }
  }
};

}  // namespace
