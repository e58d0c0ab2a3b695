// How attention is cut into tasks, and the memory that takes.
#pragma once

#include "kernel.h"

namespace bitloom {

// Tasks of a call. Where one task per piece of the output would leave threads idle, or where sequences share
// pages, keys are cut into chunks too, whose states are joined at the end; that changes no bit.
class AttentionPlan {
 public:
  AttentionPlan(const AttentionCall& call, const AttentionKernelRow& kernel, int32_t threads);

  int64_t task_count() const { return task_count_; }
  // States that are kept: of each row, of chunk_slots() chunks. 0: none.
  int64_t chunk_slots() const { return split_ ? slots_ : 0; }
  int64_t state_floats() const {
    return chunk_slots() * call_.queries * call_.heads * bitloom::state_floats(call_);
  }
  int64_t max_rows() const { return max_rows_; }

  // Writes task_count() tasks. states: state_floats() floats, not initialized.
  void write(AttentionTask* tasks, float* states) const;
  // Chunks of a row, whose states are to be joined.
  int64_t chunks(int64_t sequence, int64_t kv_head) const;

 private:
  // Calls emit(task) for each task.
  template <typename Emit>
  void for_each_task(float* states, Emit&& emit) const;
  // Sequences [sequence, result) that have their first *chunks chunks in the same pages.
  int64_t shared_run(int64_t sequence, int64_t* chunks) const;
  int64_t segment_chunks(int32_t segment, int64_t sequence, int64_t kv_head) const;
  template <typename Emit>
  void emit_pieces(AttentionTask task, int64_t sequence_begin, int64_t sequence_end, int64_t kv_head,
                   Emit&& emit) const;

  const AttentionCall& call_;
  int64_t heads_per_task_, max_rows_, kernel_rows_;
  int64_t slots_ = 0, task_count_ = 0;
  bool split_ = false;
};

}  // namespace bitloom
