// Fourth part of the SIMD kernels' text: a chunk of n tokens by products of matrices, and the task's loop
// over chunks. With d[t] the decay from the chunk's begin to token t, D[t, s] = d[t] / d[s], S the state
// before it, tril what stands on and below the diagonal:
//
//   U      = v, or with the delta rule beta (v - d (K S) - tril(D * K K^T, -1) U), from the top down
//   output = d (Q S) + tril(D * Q K^T) U
//   S      = d[n] S + (d[n] / d[s] K)^T U
//
// Where channels have decays of their own they go into Q and K beforehand. All sums stand in registers, kRows
// x kVecs at a time.

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

struct Chunk : ChunkInputs {
  using ChunkInputs::ChunkInputs;

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
        fetch(head, column / kPanel, t);
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
