// The specification of linear_attention: the recurrence, token by token, in double.
#include <cmath>

#include "kernel.h"

namespace bitloom::scalar {

namespace {

struct Work {
  int64_t rows, columns;
  double* state;   // [rows][columns]
  double* update;  // [columns]
  double* decays;  // [rows]
  float* row;      // [max(rows, columns)]
  float* key;      // [rows]

  Work(const LinearAttentionCall& call, int64_t task_columns, uint8_t* memory)
      : rows(call.key_dim),
        columns(task_columns),
        state(reinterpret_cast<double*>(memory)),
        update(state + rows * columns),
        decays(update + columns),
        row(reinterpret_cast<float*>(decays + rows)),
        key(row + std::max(rows, columns)) {}
  static uint64_t bytes(const LinearAttentionCall& call, int64_t columns) {
    const int64_t rows = call.key_dim;
    return static_cast<uint64_t>(rows * columns + columns + rows) * sizeof(double) +
           static_cast<uint64_t>(std::max(rows, columns) + rows) * sizeof(float);
  }
};

void decay_state(const LinearAttentionCall& call, const LinearAttentionTask& task, int64_t t,
                 const Work& work) {
  if (call.kind == Decay::none) return;
  call.log_decays(t, task.kv_head, work.row);
  for (int64_t i = 0; i < work.rows; ++i) {
    const bool same = i > 0 && call.kind != Decay::channel;
    work.decays[i] = same ? work.decays[0] : std::exp(static_cast<double>(work.row[i]));
    double* row = work.state + i * work.columns;
    for (int64_t j = 0; j < work.columns; ++j)
      row[j] = work.row[i] <= kResetLog ? 0 : row[j] * work.decays[i];
  }
}

void update_state(const LinearAttentionCall& call, const LinearAttentionTask& task, int64_t t,
                  const Work& work) {
  call.load_row(call.k, t, task.kv_head, 0, work.rows, work.key);
  call.load_row(call.v, t, task.kv_head, task.column_begin, work.columns, work.row);
  const double beta = call.beta_of(t, task.kv_head);
  for (int64_t j = 0; j < work.columns; ++j) {
    work.update[j] = work.row[j];
    if (!call.delta) continue;
    double present = 0;
    for (int64_t i = 0; i < work.rows; ++i) present += work.key[i] * work.state[i * work.columns + j];
    work.update[j] = beta * (work.row[j] - present);
  }
  for (int64_t i = 0; i < work.rows; ++i) {
    for (int64_t j = 0; j < work.columns; ++j)
      work.state[i * work.columns + j] += work.key[i] * work.update[j];
  }
}

void read_state(const LinearAttentionCall& call, const LinearAttentionTask& task, int64_t t, int64_t head,
                const Work& work) {
  call.load_row(call.q, t, head, 0, work.rows, work.key);
  for (int64_t j = 0; j < work.columns; ++j) {
    double sum = 0;
    for (int64_t i = 0; i < work.rows; ++i) sum += work.key[i] * work.state[i * work.columns + j];
    work.row[j] = static_cast<float>(call.scale * sum);
  }
  call.store_row(t, head, task.column_begin, work.columns, work.row);
}

}  // namespace

void linear_attention(const LinearAttentionCall& call, const LinearAttentionTask& task, uint8_t* memory) {
  const Work work(call, task.columns(), memory);
  for (int64_t i = 0; i < work.rows; ++i) {
    load_values(BL_DTYPE_f32, task.state + i * call.value_dim, 1, work.columns, work.row);
    for (int64_t j = 0; j < work.columns; ++j) work.state[i * work.columns + j] = work.row[j];
  }
  for (int64_t t = task.token_begin; t < task.token_end; ++t) {
    decay_state(call, task, t, work);
    update_state(call, task, t, work);
    for (int64_t h = 0; h < call.group(); ++h)
      read_state(call, task, t, task.kv_head * call.group() + h, work);
  }
  for (int64_t i = 0; i < work.rows; ++i) {
    for (int64_t j = 0; j < work.columns; ++j) {
      work.row[j] = static_cast<float>(work.state[i * work.columns + j]);
    }
    store_values(BL_DTYPE_f32, task.state + i * call.value_dim, 1, work.columns, work.row);
  }
}

uint64_t linear_attention_scratch_bytes(const LinearAttentionCall& call, int64_t, int64_t columns) {
  return Work::bytes(call, columns);
}

}  // namespace bitloom::scalar
