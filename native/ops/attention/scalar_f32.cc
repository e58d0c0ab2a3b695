// The specification of attention: two passes in double for each query and head.
#include <cmath>
#include <limits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "kernel.h"

namespace bitloom::scalar {

namespace {

struct Work {
  double* scores;  // [keys]
  double* sums;    // [value_dim]
  double* turned;  // [2][head_dim]: query and key, turned if there is rope
  float* query;    // [head_dim]
  float* row;      // [max(head_dim, value_dim)]

  Work(const AttentionCall& call, uint8_t* memory)
      : sums(reinterpret_cast<double*>(memory)),
        turned(sums + call.value_dim),
        query(reinterpret_cast<float*>(turned + 2 * call.head_dim)),
        row(query + call.head_dim) {
    const int64_t floats = call.head_dim + std::max(call.head_dim, call.value_dim);
    scores = turned + 2 * call.head_dim + (floats + 1) / 2;
  }
};

void load(const bl_tensor& tensor, int64_t i, int64_t head, float* values) {
  const int64_t offset = i * tensor.strides[0] + head * tensor.strides[1];
  const uint8_t* data = static_cast<const uint8_t*>(tensor.data) + offset * dtype_bytes(tensor.dtype);
  load_values(tensor.dtype, data, tensor.strides[2], tensor.shape[2], values);
}

// Key or value of a token [head_dim or value_dim]; in multi-head latent attention a value is the head of its
// key.
void load_token(const AttentionCall& call, bool values, int64_t sequence, int64_t kv_head, int64_t token,
                float* row) {
  if (call.segments[0].paged == nullptr) {
    return load(values ? call.v : call.k, call.first_key(sequence) + token, kv_head, row);
  }
  int32_t segment = 0;
  const int64_t first = call.segment_keys(0, sequence, kv_head);
  if (token >= first) {
    segment = 1;
    token -= first;
  }
  const bool own = values && call.segments[segment].paged->values.data != nullptr;
  const AttentionCall::Place place = call.place(segment, sequence, kv_head, token);
  const KvPage& layout = own ? call.segments[segment].value_page : call.segments[segment].key_page;
  decode_kv(layout, call.page(segment, own, place.page, kv_head), place.index, 1, row);
}

// A query or key as it is multiplied: rotary position embedding (ops/rope/README.md) in double.
void turn(const AttentionCall& call, int64_t position, const float* row, double* turned) {
  for (int64_t i = 0; i < call.head_dim; ++i) turned[i] = static_cast<double>(row[i]);
  if (call.rope == nullptr) return;
  const RopeTable& rope = *call.rope;
  for (int64_t j = 0; j < rope.pairs; ++j) {
    double& a = turned[rope.half ? j : 2 * j];
    double& b = turned[rope.half ? j + rope.pairs : 2 * j + 1];
    const double angle = static_cast<double>(position) * rope.frequencies[j];
    const double c = rope.magnitude * std::cos(angle), s = rope.magnitude * std::sin(angle);
    const double first = a * c - b * s;
    b = a * s + b * c;
    a = first;
  }
}

void attend(const AttentionCall& call, int64_t sequence, int64_t t, int64_t head, const Work& work) {
  const int64_t kv_head = head / call.group();
  const int64_t queries = call.query_count(sequence);
  const int64_t keys = call.keys(sequence, kv_head);
  const int64_t row = call.first_query(sequence) + t;
  const Sight sight(call, t, queries, keys, head);
  constexpr double kUnseen = -std::numeric_limits<double>::infinity();
  double* const query = work.turned;
  double* const key = query + call.head_dim;
  load(call.q, row, head, work.query);
  turn(call, call.rope == nullptr ? 0 : call.query_position(sequence, kv_head, t), work.query, query);
  const int32_t* const positions = call.rope == nullptr ? nullptr : call.positions_of_keys(sequence, kv_head);
  double largest = call.sinks != nullptr ? static_cast<double>(call.sinks[head]) : kUnseen;
  const double sink = largest;
  bool is_nan = false;
  for (int64_t s = 0; s < keys; ++s) {
    work.scores[s] = kUnseen;
    const bool seen = s < sight.sink_end || (s >= sight.begin && s < sight.end);
    if (!seen || is_masked(call, sequence, t, head, s, keys)) continue;
    load_token(call, false, sequence, kv_head, s, work.row);
    turn(call, positions == nullptr ? s : positions[s], work.row, key);
    double dot = 0;
    for (int64_t i = 0; i < call.head_dim; ++i) dot += query[i] * key[i];
    double x = dot * static_cast<double>(call.scale);
    if (call.soft_cap != 0)
      x = static_cast<double>(call.soft_cap) * std::tanh(x / static_cast<double>(call.soft_cap));
    // What is added is the same number at all levels.
    AttentionCall added = call;
    added.soft_cap = 0;
    x += static_cast<double>(finish_score(added, 0, sequence, t, head, s, keys));
    work.scores[s] = x;
    is_nan |= std::isnan(x) || x == -kUnseen;
    if (x > largest) largest = x;
  }
  double total = largest == kUnseen ? 0 : std::exp(sink - largest);
  for (int64_t i = 0; i < call.value_dim; ++i) work.sums[i] = 0;
  for (int64_t s = 0; s < keys; ++s) {
    if (work.scores[s] == kUnseen) continue;
    const double weight = std::exp(work.scores[s] - largest);
    total += weight;
    load_token(call, true, sequence, kv_head, s, work.row);
    for (int64_t i = 0; i < call.value_dim; ++i) work.sums[i] += weight * static_cast<double>(work.row[i]);
  }
  if (is_nan) total = std::numeric_limits<double>::quiet_NaN();
  for (int64_t i = 0; i < call.value_dim; ++i) {
    work.row[i] = total == 0 ? 0 : static_cast<float>(work.sums[i] / total);
  }
  store_values(call.output.dtype, output_row(call, row, head), call.output.strides[2], call.value_dim,
               work.row);
  const double lse = total == 0 ? kUnseen : largest + std::log(total);
  if (call.lse.data != nullptr) *lse_of(call, row, head) = static_cast<float>(lse);
  if (call.probabilities.data == nullptr) return;
  float* probabilities = probability_row(call, row, head);
  for (int64_t s = 0; s < call.probabilities.shape[2]; ++s) {
    const bool none = s >= keys || work.scores[s] == kUnseen;
    probabilities[s] = none ? 0 : static_cast<float>(std::exp(work.scores[s] - lse));
  }
}

}  // namespace

void attention_f32(const AttentionCall& call, const AttentionTask& task, uint8_t* memory) {
  const Work work(call, memory);
  for (int64_t sequence = task.sequence_begin; sequence < task.sequence_end; ++sequence) {
    for (int64_t t = task.query_begin; t < task.query_end; ++t) {
      for (int64_t head = task.head_begin; head < task.head_end; ++head)
        attend(call, sequence, t, head, work);
    }
  }
}

void attention_join_f32(const AttentionCall&, int64_t, int64_t, const float*, int64_t, uint8_t*) {}

uint64_t attention_scratch_bytes_f32(const AttentionCall& call, int64_t) {
  int64_t keys = 0;
  for (int64_t sequence = 0; sequence < call.sequences; ++sequence) {
    for (int64_t head = 0; head < call.kv_heads; ++head) keys = std::max(keys, call.keys(sequence, head));
  }
  const int64_t floats = call.head_dim + std::max(call.head_dim, call.value_dim);
  return static_cast<uint64_t>(keys + call.value_dim + 2 * call.head_dim + (floats + 1) / 2) * sizeof(double);
}

}  // namespace bitloom::scalar
