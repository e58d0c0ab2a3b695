// Second part of the SIMD kernels' text: the recurrence, token by token, for decode and for chunks of few
// tokens. It reads each value of the state once from memory and writes it once; second readings (delta rule,
// further query heads) find it in a near cache.

namespace {

// What a token needs besides the state and its columns: [key_dim] each.
struct Step {
  const float* key;
  const float* query;  // times scale
  const float* decay;
  const float* decayed;  // key times decay
  int64_t key_dim;
  float beta;
  bool delta;
};

// kCount vectors of columns: the state one token on, and what its query reads there.
template <int kCount, typename Part>
inline void step_tile(const Step& step, State state, const float* values, float* outputs, Part part) {
  Vec update[kCount];
  for (int j = 0; j < kCount; ++j) update[j] = part.load(values + j * kLanes);
  if (step.delta) {
    Vec present[kCount];
    for (Vec& each : present) each = Vec::set(0);
    for (int64_t i = 0; i < step.key_dim; ++i) {
      const Vec key = Vec::set(step.decayed[i]);
      const float* row = state.data + i * state.stride;
      for (int j = 0; j < kCount; ++j) present[j] = fma(key, part.load(row + j * kLanes), present[j]);
    }
    for (int j = 0; j < kCount; ++j) update[j] = (update[j] - present[j]) * Vec::set(step.beta);
  }
  Vec sum[kCount];
  for (Vec& each : sum) each = Vec::set(0);
  for (int64_t i = 0; i < step.key_dim; ++i) {
    const Vec key = Vec::set(step.key[i]), decay = Vec::set(step.decay[i]), query = Vec::set(step.query[i]);
    float* row = state.data + i * state.stride;
    for (int j = 0; j < kCount; ++j) {
      const Vec value = fma(key, update[j], decay * part.load(row + j * kLanes));
      part.store(row + j * kLanes, value);
      sum[j] = fma(query, value, sum[j]);
    }
  }
  for (int j = 0; j < kCount; ++j) part.store(outputs + j * kLanes, sum[j]);
}

// What one more query reads.
template <int kCount, typename Part>
inline void read_tile(const Step& step, State state, const float*, float* outputs, Part part) {
  Vec sum[kCount];
  for (Vec& each : sum) each = Vec::set(0);
  for (int64_t i = 0; i < step.key_dim; ++i) {
    const Vec query = Vec::set(step.query[i]);
    const float* row = state.data + i * state.stride;
    for (int j = 0; j < kCount; ++j) sum[j] = fma(query, part.load(row + j * kLanes), sum[j]);
  }
  for (int j = 0; j < kCount; ++j) part.store(outputs + j * kLanes, sum[j]);
}

template <bool kSteps>
inline void for_columns(const Step& step, State state, int64_t columns, const float* values, float* outputs) {
  const auto tile = [&](auto count, int64_t j, auto part) {
    const State here{state.data + j, state.stride};
    if constexpr (kSteps) step_tile<count()>(step, here, values + j, outputs + j, part);
    if constexpr (!kSteps) read_tile<count()>(step, here, values + j, outputs + j, part);
  };
  int64_t j = 0;
  for (; j + kStepVecs * kLanes <= columns; j += kStepVecs * kLanes) {
    tile(std::integral_constant<int, kStepVecs>{}, j, Whole{});
  }
  for (; j + kLanes <= columns; j += kLanes) tile(std::integral_constant<int, 1>{}, j, Whole{});
  if (j < columns) tile(std::integral_constant<int, 1>{}, j, First{columns - j});
}

inline void load_query(const LinearAttentionCall& call, int64_t t, int64_t head, float* query) {
  call.load_row(call.q, t, head, 0, call.key_dim, query);
  for (int64_t i = 0; i < call.key_dim; ++i) query[i] *= call.scale;
}

// Token t, whose resets are done. Its output and the state after it.
void step(const LinearAttentionCall& call, const LinearAttentionTask& task, int64_t t, State state,
          const Work& work) {
  float* key = work.key_rows;
  float* decayed = key + work.channels;
  float* query = work.row_block;
  float* decay = work.decays;
  call.load_row(call.k, t, task.kv_head, 0, call.key_dim, key);
  call.load_row(call.v, t, task.kv_head, task.column_begin, task.columns(), work.values);
  if (call.kind == Decay::none) {
    fill(decay, call.key_dim, 1);
  } else if (call.kind == Decay::channel) {
    call.log_decays(t, task.kv_head, decay);
    for_each_vec(call.key_dim,
                 [&](int64_t i, auto part) { part.store(decay + i, exp(part.load(decay + i))); });
  } else {
    fill(decay, call.key_dim, exp(Vec::set(call.log_decay(t, task.kv_head))).reduce_max());
  }
  for (int64_t i = 0; i < call.key_dim; ++i) decayed[i] = key[i] * decay[i];
  fill(query, call.key_dim, 0);
  const int64_t first = task.kv_head * call.group();
  if (call.group() > 0) load_query(call, t, first, query);
  const Step now{key, query, decay, decayed, call.key_dim, call.beta_of(t, task.kv_head), call.delta};
  for_columns<true>(now, state, task.columns(), work.values, work.outputs);
  for (int64_t head = first; head < first + call.group(); ++head) {
    if (head > first) {
      load_query(call, t, head, query);
      for_columns<false>(now, state, task.columns(), work.values, work.outputs);
    }
    call.store_row(t, head, task.column_begin, task.columns(), work.outputs);
  }
}

}  // namespace
