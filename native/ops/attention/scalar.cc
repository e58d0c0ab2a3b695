// The specification of attention: two passes in double for each query and head.
#include <cmath>
#include <limits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "kernel.h"

namespace bitloom::scalar {

namespace {

struct Work {
  double* weights;  // [keys]
  double* sums;     // [value_dim]
  float* query;     // [head_dim]
  float* row;       // [max(head_dim, value_dim)]

  explicit Work(const AttentionCall& call, uint8_t* memory)
      : weights(reinterpret_cast<double*>(memory)),
        sums(weights + call.keys),
        query(reinterpret_cast<float*>(sums + call.value_dim)),
        row(query + call.head_dim) {}
};

void load(const bl_tensor& tensor, int64_t i, int64_t head, float* values) {
  const int64_t offset = i * tensor.strides[0] + head * tensor.strides[1];
  const uint8_t* data = static_cast<const uint8_t*>(tensor.data) + offset * dtype_bytes(tensor.dtype);
  load_values(tensor.dtype, data, tensor.strides[2], tensor.shape[2], values);
}

void attend(const AttentionCall& call, int64_t t, int64_t head, const Work& work) {
  const int64_t kv_head = head / call.group();
  const int64_t first = call.first_key(t);
  const int64_t last = call.last_key(t);
  load(call.q, t, head, work.query);
  double largest = -std::numeric_limits<double>::infinity();
  for (int64_t s = first; s < last; ++s) {
    load(call.k, s, kv_head, work.row);
    double dot = 0;
    for (int64_t i = 0; i < call.head_dim; ++i) dot += static_cast<double>(work.query[i]) * work.row[i];
    work.weights[s] = dot * call.scale;
    if (work.weights[s] > largest) largest = work.weights[s];
  }
  double total = 0;
  for (int64_t i = 0; i < call.value_dim; ++i) work.sums[i] = 0;
  for (int64_t s = first; s < last; ++s) {
    const double weight = std::exp(work.weights[s] - largest);
    total += weight;
    load(call.v, s, kv_head, work.row);
    for (int64_t i = 0; i < call.value_dim; ++i) work.sums[i] += weight * work.row[i];
  }
  for (int64_t i = 0; i < call.value_dim; ++i) work.row[i] = static_cast<float>(work.sums[i] / total);
  const int64_t offset = t * call.output.strides[0] + head * call.output.strides[1];
  store_values(call.output.dtype,
               static_cast<uint8_t*>(call.output.data) + offset * dtype_bytes(call.output.dtype),
               call.output.strides[2], call.value_dim, work.row);
}

}  // namespace

void attention(const AttentionCall& call, const AttentionTask& task, uint8_t* memory) {
  const Work work(call, memory);
  for (int64_t t = task.query_begin; t < task.query_end; ++t) {
    for (int64_t head = task.head_begin; head < task.head_end; ++head) attend(call, t, head, work);
  }
}

uint64_t attention_scratch_bytes(const AttentionCall& call, int64_t) {
  return static_cast<uint64_t>(call.keys + call.value_dim) * sizeof(double) +
         static_cast<uint64_t>(call.head_dim + std::max(call.head_dim, call.value_dim)) * sizeof(float);
}

}  // namespace bitloom::scalar
