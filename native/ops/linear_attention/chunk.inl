// Third part of the SIMD kernels' text: a chunk of n tokens by products of matrices, and the task's loop over
// chunks. With d[t] the decay from the chunk's begin to token t, S the state before it, rows t and columns j:
//   U = v, or with the delta rule beta (v - d (K S) - (tril(K K^T, -1) * d[t] / d[s]) U), from the first row
//   down output = d (Q S) + tril(Q K^T * d[t] / d[s]) U S = d[n] S + (d[n] / d[s] K)^T U
// Where channels have decays of their own they go into Q and K beforehand. All sums stand in registers, kRows
// x kVecs at a time; left sides are stored turned, so that the kRows factors of a step lie side by side.

namespace {

using Tile = Vec[kRows][kVecs];

// sum[r][v] += left[i][r] right[i][v], or -=, over i in [0, steps).
template <bool kMinus = false>
inline void accumulate(Tile& sum, const float* left, int64_t left_stride, const float* right,
                       int64_t right_stride, int64_t steps) {
  for (int64_t i = 0; i < steps; ++i) {
    Vec columns[kVecs];
    for (int v = 0; v < kVecs; ++v) columns[v] = Vec::load(right + v * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Vec factor = Vec::set(left[r]);
      for (int v = 0; v < kVecs; ++v) {
        sum[r][v] = kMinus ? fnma(factor, columns[v], sum[r][v]) : fma(factor, columns[v], sum[r][v]);
      }
    }
    left += left_stride;
    right += right_stride;
  }
}

inline void clear(Tile& sum) {
  for (auto& row : sum) {
    for (Vec& one : row) one = Vec::set(0);
  }
}

// exp(log d[to] - log d[from]) for kLanes tokens `to`, log d in two parts.
inline Vec shared_decay(const Work& work, int64_t to, int64_t from) {
  return exp((Vec::load(work.sum_high + to) - Vec::set(work.sum_high[from])) +
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

// A chunk: n tokens from `first` on, `padded` of them with those of zeros that make panels whole.
struct Chunk {
  const LinearAttentionCall& call;
  const LinearAttentionTask& task;
  const Work& work;
  int64_t first, n, padded;

  Chunk(const LinearAttentionCall& its_call, const LinearAttentionTask& its_task, const Work& its_work,
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
      const Vec begin = exp(sum_high);
      fma(begin, sum_low, begin).store(work.from_begin + t);
      exp((high - sum_high) + (low - sum_low)).store(work.to_end + t);
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

  // weights[s][t] = decay from s to t * k[s] . rows[t], times beta[t] if asked; of the pairs s > t only what
  // shares a tile with others, and that is never read.
  __attribute__((noinline)) void weigh(const float* turned, bool times_beta) const {
    for (int64_t s = 0; s < n; s += kRows) {
      for (int64_t t = s / kPanel * kPanel; t < n; t += kPanel) {
        Tile sum;
        clear(sum);
        accumulate(sum, work.turned_k + s, work.tokens, turned + t, work.tokens, call.key_dim);
        for (int r = 0; r < kRows; ++r) {
          for (int v = 0; v < kVecs; ++v) {
            const int64_t to = t + v * kLanes;
            if (shared()) sum[r][v] = sum[r][v] * shared_decay(work, to, s + r);
            if (times_beta) sum[r][v] = sum[r][v] * Vec::load(work.beta + to);
            sum[r][v].store(work.weights + (s + r) * work.tokens + to);
          }
        }
      }
    }
  }

  // Brings rows [t, t + kRows) of the next chunk near: rows of one head lie pages apart, where no processor
  // sees them coming. Panel 0 of the products asks for keys, 1 for values, 2 for queries.
  void fetch_next(int64_t head, int64_t panel, int64_t t) const {
    const bool first_head = head == task.kv_head * call.group();
    for (; panel < 3; panel += work.columns / kPanel) {
      if (panel == 2) {
        fetch(call.q, head, 0, call.key_dim, t);
      } else if (first_head) {
        panel == 0 ? fetch(call.k, task.kv_head, 0, call.key_dim, t)
                   : fetch(call.v, task.kv_head, task.column_begin, task.columns(), t);
      }
    }
  }

  void fetch(const bl_tensor& tensor, int64_t head, int64_t column, int64_t count, int64_t t) const {
    const int64_t size = tensor.dtype == BL_DTYPE_f32 ? 4 : 2;
    for (int64_t i = first + n + t; i < first + n + t + kRows && i < task.token_end; ++i) {
      const uint8_t* row = static_cast<const uint8_t*>(tensor.data) +
                           (i * tensor.strides[0] + head * tensor.strides[1] + column) * size;
      for (int64_t byte = 0; byte < count * size; byte += 64) __builtin_prefetch(row + byte, 0, 2);
    }
  }

  // What rows [t, t + kRows) of `turned` find in the state before the chunk.
  void find(Tile& sum, const float* turned, int64_t t, int64_t column) const {
    clear(sum);
    accumulate(sum, turned + t, work.tokens, work.state + column, work.stride, call.key_dim);
    if (!shared()) return;
    for (int r = 0; r < kRows; ++r) {
      for (Vec& one : sum[r]) one = one * Vec::set(work.from_begin[t + r]);
    }
  }

  // The delta rule: v becomes u, by forward substitution.
  __attribute__((noinline)) void solve() const {
    weigh(work.decayed_k, true);
    for (int64_t column = 0; column < work.columns; column += kPanel) {
      for (int64_t t = 0; t < n; t += kRows) {
        Tile sum;
        find(sum, work.decayed_k, t, column);
        float* rows = work.updates + t * work.stride + column;
        for (int r = 0; r < kRows; ++r) {
          for (int v = 0; v < kVecs; ++v) {
            sum[r][v] =
                (Vec::load(rows + r * work.stride + v * kLanes) - sum[r][v]) * Vec::set(work.beta[t + r]);
          }
        }
        accumulate<true>(sum, work.weights + t, work.tokens, work.updates + column, work.stride, t);
        const float* square = work.weights + t * work.tokens + t;
#pragma GCC unroll 8
        for (int s = 0; s < kRows; ++s) {
          for (int v = 0; v < kVecs; ++v) sum[s][v].store(rows + s * work.stride + v * kLanes);
#pragma GCC unroll 8
          for (int r = s + 1; r < kRows; ++r) {
            const Vec factor = Vec::set(square[s * work.tokens + r]);
            for (int v = 0; v < kVecs; ++v) sum[r][v] = fnma(factor, sum[s][v], sum[r][v]);
          }
        }
      }
    }
  }

  __attribute__((noinline)) void products(int64_t head) const {
    for (int64_t column = 0; column < work.columns; column += kPanel) {
      for (int64_t t = 0; t < n; t += kRows) {
        fetch_next(head, column / kPanel, t);
        Tile sum;
        find(sum, work.turned_q, t, column);
        accumulate(sum, work.weights + t, work.tokens, work.updates + column, work.stride, t);
        // Row r of the square has the tokens up to its own only: a later one never touches it, NaN or not.
        const float* square = work.weights + t * work.tokens + t;
        const float* rows = work.updates + t * work.stride + column;
#pragma GCC unroll 8
        for (int s = 0; s < kRows; ++s) {
          Vec update[kVecs];
          for (int v = 0; v < kVecs; ++v) update[v] = Vec::load(rows + s * work.stride + v * kLanes);
#pragma GCC unroll 8
          for (int r = s; r < kRows; ++r) {
            const Vec factor = Vec::set(square[s * work.tokens + r]);
            for (int v = 0; v < kVecs; ++v) sum[r][v] = fma(factor, update[v], sum[r][v]);
          }
        }
        for (int r = 0; r < kRows; ++r) {
          for (int v = 0; v < kVecs; ++v) {
            sum[r][v].store(work.outputs + (t + r) * work.stride + column + v * kLanes);
          }
        }
      }
    }
  }

  void read(int64_t head) const {
    prepare_query(head);
    weigh(work.turned_q, false);
    products(head);
    for (int64_t t = 0; t < n; ++t) {
      call.store_row(first + t, head, task.column_begin, task.columns(), work.outputs + t * work.stride);
    }
  }

  __attribute__((noinline)) void update_state() const {
    const bool decays = call.kind != Decay::none;
    for (int64_t column = 0; column < work.columns; column += kPanel) {
      for (int64_t i = 0; i < work.rows; i += kRows) {
        Tile sum;
        float* rows = work.state + i * work.stride + column;
        for (int r = 0; r < kRows; ++r) {
          for (int v = 0; v < kVecs; ++v) {
            sum[r][v] = Vec::load(rows + r * work.stride + v * kLanes);
            if (decays) sum[r][v] = sum[r][v] * Vec::set(work.whole[i + r]);
          }
        }
        accumulate(sum, work.key_rows + i, work.channels, work.updates + column, work.stride, n);
        for (int r = 0; r < kRows; ++r) {
          for (int v = 0; v < kVecs; ++v) sum[r][v].store(rows + r * work.stride + v * kLanes);
        }
      }
    }
  }

  void run() const {
    prepare();
    if (call.delta) solve();
    for (int64_t h = 0; h < call.group(); ++h) read(task.kv_head * call.group() + h);
    update_state();
  }
};

}  // namespace

void linear_attention(const LinearAttentionCall& call, const LinearAttentionTask& task, uint8_t* memory) {
  const Work work(call, task.tokens(), task.columns(), memory);
  // Few tokens work on the caller's state; chunks on a copy in whole tiles, whose rows do not fall on the
  // same sets of a cache as those of a state with many columns do.
  const bool copied = task.tokens() > kFewTokens;
  const State state = copied ? State{work.state, work.stride} : State{task.state, call.value_dim};
  const size_t row_bytes = static_cast<size_t>(task.columns()) * sizeof(float);
  if (copied) {
    fill(work.state, work.rows * work.stride, 0);
    for (int64_t i = 0; i < call.key_dim; ++i) {
      std::memcpy(work.state + i * work.stride, task.state + i * call.value_dim, row_bytes);
    }
  }
  for (int64_t t = task.token_begin; t < task.token_end;) {
    reset_state(call, task, t, state, work.row_block);
    const int64_t left = task.token_end - t;
    const int64_t most = left < call.chunk ? left : call.chunk;
    const int64_t n = call.kind == Decay::none      ? most
                      : call.kind == Decay::channel ? gather_channels(call, task.kv_head, t, most, work)
                                                    : gather_shared(call, task.kv_head, t, most, work);
    if (copied && n > kFewTokens) {
      Chunk(call, task, work, t, n).run();
    } else {
      for (int64_t i = 0; i < n; ++i) step(call, task, t + i, state, work);
    }
    t += n;
  }
  if (!copied) return;
  for (int64_t i = 0; i < call.key_dim; ++i) {
    std::memcpy(task.state + i * call.value_dim, work.state + i * work.stride, row_bytes);
  }
}

uint64_t linear_attention_scratch_bytes(const LinearAttentionCall& call, int64_t tokens, int64_t columns) {
  return Work(call, tokens, columns, nullptr).bytes;
}
