// First part of the SIMD kernels' text: the workspace of a task, and the decays of the tokens that make a
// chunk.

namespace {

constexpr int64_t kLanes = Vec::kLanes;
constexpr int64_t kPanel = kVecs * kLanes;  // columns of a register tile
// Chunks of so few tokens go through the recurrence: its one pass over the state costs less than the two of a
// chunk.
constexpr int64_t kFewTokens = 4;
// Channels whose decays over a chunk stay within exp(+-kRange) can be divided by them: nothing comes near
// overflow that is not within 2^-23 of it already. A chunk ends before.
constexpr float kRange = 16;
// The same for a decay that all channels share, which is never divided by: only growth must be held.
constexpr double kGrowth = 60;

inline int64_t rounded(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// The length of a row of at least n floats, an odd number of lines of 64 bytes: rows of an even number, 8 for
// 128 columns, fall on every eighth set of a cache only, and a panel of 128 of them does not stay in L1.
inline int64_t row_length(int64_t n) {
  return rounded(n, 16) % 32 == 16 ? rounded(n, 16) : rounded(n, 16) + 16;
}

struct Work {
  int64_t rows;      // of the state: key_dim, to whole tiles
  int64_t channels;  // length of a row of keys
  int64_t columns;   // to whole panels
  int64_t stride;    // length of a row of columns
  int64_t tokens;    // length of a row of tokens of a chunk, to whole tiles and panels
  float* state;      // [rows][stride]
  float* updates;    // [tokens][stride] v, then u
  float* outputs;    // [tokens][stride]
  float* turned_q;   // [rows][tokens] q scale (times its decays)
  float* turned_k;   // [rows][tokens] k (divided by its decays)
  float* decayed_k;  // [rows][tokens] k (times its decays); turned_k where all channels share a decay
  float* key_rows;   // [tokens][channels] k, then k decayed to the end of the chunk
  float* row_block;  // [tokens][channels]
  float* weights;    // [tokens][tokens]: [s][t]
  float* decays;     // [tokens][channels]: logs, then products of decays since the chunk began
  // [tokens], where all channels share a decay: sums of logs in two parts, decays from the first and to the
  // last token
  float *sum_high, *sum_low, *from_begin, *to_end;
  float* beta;    // [tokens]
  float* whole;   // [channels] decay over the chunk
  float* values;  // [stride]
  uint64_t bytes;

  Work(const LinearAttentionCall& call, int64_t task_tokens, int64_t task_columns, uint8_t* memory)
      : rows(rounded(call.key_dim, kRows)),
        channels(row_length(rows)),
        columns(rounded(task_columns, kPanel)),
        stride(row_length(columns)),
        tokens(row_length(
            rounded(rounded(task_tokens < call.chunk ? task_tokens : call.chunk, kRows), kPanel))) {
    int64_t next = 0;
    const auto take = [&next, memory](int64_t count) {
      const int64_t taken = next;
      next += rounded(count, kScratchAlignment / 4);
      return memory == nullptr ? nullptr : reinterpret_cast<float*>(memory) + taken;
    };
    state = take(task_tokens > kFewTokens ? rows * stride : 0);
    updates = take(tokens * stride);
    outputs = take(tokens * stride);
    turned_q = take(rows * tokens);
    turned_k = take(rows * tokens);
    decayed_k = call.delta && call.kind == Decay::channel ? take(rows * tokens) : turned_k;
    key_rows = take(tokens * channels);
    row_block = take(tokens * channels);
    weights = take(tokens * tokens);
    decays = take(tokens * channels);
    sum_high = take(tokens);
    sum_low = take(tokens);
    from_begin = take(tokens);
    to_end = take(tokens);
    beta = take(tokens);
    whole = take(channels);
    values = take(stride);
    bytes = static_cast<uint64_t>(next) * sizeof(float);
  }
};

// The state of a task where it lies now.
struct State {
  float* data;
  int64_t stride;
};

inline void fill(float* p, int64_t count, float value) {
  for (int64_t i = 0; i < count; ++i) p[i] = value;
}

// Sums of the logs of tokens from t on, as far as a chunk goes: at most `most` tokens, ending before one that
// resets and before growth that could overflow. In double, kept in two parts: differences of neighbours are
// then right to 2^-45, however large the sums. Returns the number of tokens, at least 1.
inline int64_t gather_shared(const LinearAttentionCall& call, int64_t kv_head, int64_t t, int64_t most,
                             const Work& work) {
  double sum = 0;
  double lowest = 0;
  int64_t n = 0;
  for (; n < most; ++n) {
    const float log = call.log_decay(t + n, kv_head);
    if (n > 0 && log <= kResetLog) break;
    if (!(log <= kResetLog)) sum += static_cast<double>(log);
    if (sum < lowest) lowest = sum;
    if (sum - lowest > kGrowth) return n > 0 ? n : 1;
    work.sum_high[n] = static_cast<float>(sum);
    work.sum_low[n] = static_cast<float>(sum - static_cast<double>(work.sum_high[n]));
  }
  return n;
}

// Products of the decays of each channel from token t on, as far as a chunk goes: see gather_shared; and no
// further than kRange. As products, whose relative error is 2 * 2^-24 for each factor, however small they
// get.
inline int64_t gather_channels(const LinearAttentionCall& call, int64_t kv_head, int64_t t, int64_t most,
                               const Work& work) {
  const float lowest = exp(Vec::set(-kRange)).reduce_max();
  const float highest = exp(Vec::set(kRange)).reduce_max();
  int64_t n = 0;
  for (; n < most; ++n) {
    float* row = work.decays + n * work.channels;
    call.log_decays(t + n, kv_head, row);
    fill(row + call.key_dim, work.channels - call.key_dim, 0);
    bool resets = false;
    for (int64_t i = 0; i < call.key_dim; ++i) resets |= row[i] <= kResetLog;
    if (resets && n > 0) break;
    if (resets) {  // which is done when the chunk begins
      for (int64_t i = 0; i < call.key_dim; ++i) row[i] = row[i] <= kResetLog ? 0 : row[i];
    }
    Vec least = Vec::set(1), largest = Vec::set(1);
    for (int64_t i = 0; i < work.channels; i += kLanes) {
      Vec product = exp(Vec::load(row + i));
      if (n > 0) product = product * Vec::load(row - work.channels + i);
      product.store(row + i);
      least = min(product, least);
      largest = max(product, largest);
    }
    const float smallest = -(Vec::set(0) - least).reduce_max();
    if (smallest < lowest || largest.reduce_max() > highest) return n > 0 ? n : 1;
  }
  return n;
}

// Rows of the state that token t resets.
inline void reset_state(const LinearAttentionCall& call, const LinearAttentionTask& task, int64_t t,
                        State state, float* logs) {
  if (call.kind == Decay::none) return;
  if (call.kind != Decay::channel && !(call.log_decay(t, task.kv_head) <= kResetLog)) return;
  call.log_decays(t, task.kv_head, logs);
  for (int64_t i = 0; i < call.key_dim; ++i) {
    if (logs[i] <= kResetLog)
      std::memset(state.data + i * state.stride, 0, static_cast<size_t>(task.columns()) * 4);
  }
}

}  // namespace
