#include "plan.h"

#include <algorithm>

namespace bitloom {

namespace {

// Tasks per thread below which keys are cut too: fewer leave a thread idle at the end for long.
constexpr int64_t kTasksPerThread = 4;
// Memory for states at most (64 MiB); sequences beyond it do not share reads.
constexpr int64_t kMaxStateFloats = int64_t{1} << 24;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

AttentionPlan::AttentionPlan(const AttentionCall& call, const AttentionKernelRow& kernel, int32_t threads)
    : call_(call), heads_per_task_(std::min(call.group(), kernel.max_heads)), kernel_rows_(kernel.max_rows) {
  int64_t most_queries = 1;
  int64_t tasks = 0;
  bool shares = false;
  for (int64_t sequence = 0; sequence < call.sequences; ++sequence) {
    const int64_t queries = call.query_count(sequence);
    most_queries = std::max(most_queries, queries);
    const int64_t per_task = std::max<int64_t>(kernel_rows_ / heads_per_task_, 1);
    tasks += call.kv_heads * ceil_div(call.group(), heads_per_task_) * ceil_div(queries, per_task);
    for (int64_t head = 0; head < call.kv_heads; ++head) slots_ = std::max(slots_, chunks(sequence, head));
  }
  max_rows_ = std::min(kernel_rows_, heads_per_task_ * most_queries);
  if (kernel.chunks && slots_ > 1) {
    split_ = tasks < kTasksPerThread * threads;
    // Few rows over tensors, where the heads of a key lie beside one another: chunks of all heads in turn
    // read memory as it lies.
    split_ |=
        call.segments[0].paged == nullptr && call.kv_heads > 1 && most_queries * call.group() <= kernel_rows_;
    for (int64_t sequence = 0; !split_ && sequence < call.sequences;) {
      int64_t shared = 0;
      const int64_t end = shared_run(sequence, &shared);
      shares |= shared > 0;
      sequence = end;
    }
    const int64_t floats = slots_ * call.queries * call.heads * bitloom::state_floats(call);
    split_ = (split_ || shares) && floats <= kMaxStateFloats;
    if (split_) max_rows_ = kernel_rows_;  // of several sequences
  }
  for_each_task(nullptr, [&](const AttentionTask&) { ++task_count_; });
}

int64_t AttentionPlan::segment_chunks(int32_t segment, int64_t sequence, int64_t kv_head) const {
  return ceil_div(call_.segment_keys(segment, sequence, kv_head), kKeyChunk);
}

int64_t AttentionPlan::chunks(int64_t sequence, int64_t kv_head) const {
  int64_t count = 0;
  for (int32_t i = 0; i < call_.segment_count; ++i) count += segment_chunks(i, sequence, kv_head);
  return count;
}

int64_t AttentionPlan::shared_run(int64_t sequence, int64_t* chunks) const {
  *chunks = 0;
  const bl_kv_segment* paged = call_.segments[0].paged;
  int64_t end = sequence + 1;
  if (paged == nullptr || paged->block_table.rank != 2 || paged->lengths.rank != 1) return end;
  if (call_.key_positions.data != nullptr) return end;  // the same pages may be keys of other positions
  const int64_t page_size = call_.segments[0].key_page.page_size;
  int64_t common = call_.segment_keys(0, sequence, 0) / kKeyChunk;  // chunks
  for (; end < call_.sequences && call_.query_count(end) == call_.query_count(sequence); ++end) {
    const int64_t most = std::min(common, call_.segment_keys(0, end, 0) / kKeyChunk);
    int64_t tokens = 0;
    while (tokens < most * kKeyChunk &&
           call_.place(0, sequence, 0, tokens).page == call_.place(0, end, 0, tokens).page) {
      tokens += page_size;
    }
    const int64_t both = std::min(tokens / kKeyChunk, most);
    // A sequence that shares little would leave the others less to share.
    if (both == 0 || 2 * both < common) break;
    common = both;
  }
  if (end - sequence > 1) *chunks = common;
  return end;
}

// Cuts a task's heads, queries and sequences into pieces of at most kernel_rows_ rows.
template <typename Emit>
void AttentionPlan::emit_pieces(AttentionTask task, int64_t sequence_begin, int64_t sequence_end,
                                int64_t kv_head, Emit&& emit) const {
  const int64_t queries = call_.query_count(sequence_begin);
  if (queries == 0) return;
  const int64_t group = call_.group();
  const int64_t queries_per_task = std::max<int64_t>(kernel_rows_ / heads_per_task_, 1);
  for (int64_t head = 0; head < group; head += heads_per_task_) {
    task.head_begin = kv_head * group + head;
    task.head_end = kv_head * group + std::min(head + heads_per_task_, group);
    for (int64_t query = 0; query < queries; query += queries_per_task) {
      task.query_begin = query;
      task.query_end = std::min(query + queries_per_task, queries);
      const int64_t rows = (task.head_end - task.head_begin) * (task.query_end - task.query_begin);
      const int64_t together = std::max<int64_t>(kernel_rows_ / rows, 1);
      for (int64_t sequence = sequence_begin; sequence < sequence_end; sequence += together) {
        task.sequence_begin = sequence;
        task.sequence_end = std::min(sequence + together, sequence_end);
        emit(task);
      }
    }
  }
}

template <typename Emit>
void AttentionPlan::for_each_task(float* states, Emit&& emit) const {
  const int64_t floats = bitloom::state_floats(call_);
  AttentionTask task{};
  task.chunk_end = -1;
  if (!split_) {
    for (int64_t sequence = 0; sequence < call_.sequences; ++sequence) {
      for (int64_t head = 0; head < call_.kv_heads; ++head)
        emit_pieces(task, sequence, sequence + 1, head, emit);
    }
    return;
  }
  task.state_stride = slots_ * floats;
  task.state_heads = call_.heads;
  const auto chunk = [&](int32_t segment, int64_t index, int64_t slot) {
    task.segment = segment;
    task.chunk_begin = index;
    task.chunk_end = index + 1;
    task.state = states == nullptr ? nullptr : states + slot * floats;
  };
  if (call_.segments[0].paged == nullptr) {
    for (int64_t sequence = 0; sequence < call_.sequences; ++sequence) {
      for (int64_t i = 0; i < segment_chunks(0, sequence, 0); ++i) {
        for (int64_t head = 0; head < call_.kv_heads; ++head) {
          chunk(0, i, i);
          emit_pieces(task, sequence, sequence + 1, head, emit);
        }
      }
    }
    return;
  }
  for (int64_t sequence = 0; sequence < call_.sequences;) {
    int64_t shared = 0;
    const int64_t end = shared_run(sequence, &shared);
    for (int64_t head = 0; head < call_.kv_heads; ++head) {
      for (int64_t i = 0; i < shared; ++i) {
        chunk(0, i, i);
        emit_pieces(task, sequence, end, head, emit);
      }
      for (int64_t own = sequence; own < end; ++own) {
        const int64_t first = segment_chunks(0, own, head);
        for (int64_t i = shared; i < first; ++i) {
          chunk(0, i, i);
          emit_pieces(task, own, own + 1, head, emit);
        }
        for (int64_t i = 0; call_.segment_count > 1 && i < segment_chunks(1, own, head); ++i) {
          chunk(1, i, first + i);
          emit_pieces(task, own, own + 1, head, emit);
        }
      }
    }
    sequence = end;
  }
}

void AttentionPlan::write(AttentionTask* tasks, float* states) const {
  for_each_task(states, [&](const AttentionTask& task) { *tasks++ = task; });
}

}  // namespace bitloom
