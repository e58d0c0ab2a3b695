#include "scores.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "../../base/thread_pool.h"
#include "validate_parts.h"

namespace bitloom {

namespace {

int64_t observed_queries(const AttentionCall& call, const bl_attention_args& args, int64_t sequence) {
  const int64_t queries = call.query_count(sequence);
  return args.score_queries == 0 ? queries : std::min<int64_t>(queries, args.score_queries);
}

float* score_row(const bl_tensor& tensor, int64_t sequence, int64_t head) {
  return static_cast<float*>(tensor.data) + sequence * tensor.strides[0] + head * tensor.strides[1];
}

// One thread's memory: a task's weights, and what has been added up of its heads.
struct ScoreWork {
  int64_t stride;   // of rows
  float* weights;   // [rows][stride]
  double* sums;     // [heads][stride]
  double* squares;  // [heads][stride]
  double* entropy;  // [heads]
  float* output;    // [value_dim], where results go that are not wanted
  uint8_t* kernel;  // the kernel's own
  uint64_t bytes;

  ScoreWork(const AttentionCall& call, const AttentionKernelRow& row, int64_t keys, int64_t heads,
            int64_t rows, uint8_t* memory)
      : stride((keys + 15) / 16 * 16) {
    uint8_t* next = memory;
    const auto take = [&](uint64_t size) {
      uint8_t* taken = next;
      next += align_up(size);
      return taken;
    };
    const uint64_t columns = static_cast<uint64_t>(stride);
    weights = reinterpret_cast<float*>(take(static_cast<uint64_t>(rows) * columns * sizeof(float)));
    sums = reinterpret_cast<double*>(take(static_cast<uint64_t>(heads) * columns * sizeof(double)));
    squares = reinterpret_cast<double*>(take(static_cast<uint64_t>(heads) * columns * sizeof(double)));
    entropy = reinterpret_cast<double*>(take(static_cast<uint64_t>(heads) * sizeof(double)));
    output = reinterpret_cast<float*>(take(static_cast<uint64_t>(call.value_dim) * sizeof(float)));
    kernel = take(row.scratch_bytes(call, rows));
    bytes = static_cast<uint64_t>(next - memory);
  }
};

// Adds one row's weights of `keys` keys.
void add_row(const ScoreWork& work, const bl_attention_args& args, const float* weights, int64_t head,
             int64_t keys) {
  double* const sums = work.sums + head * work.stride;
  double* const squares = work.squares + head * work.stride;
  for (int64_t s = 0; s < keys; ++s) {
    const double p = static_cast<double>(weights[s]);
    sums[s] += p;
    squares[s] += p * p;
  }
  if (args.score_entropy.data == nullptr) return;
  double entropy = 0;
  for (int64_t s = 0; s < keys; ++s) {
    // Comparisons with NaN are false: it goes into the sum.
    if (weights[s] != 0)
      entropy -= static_cast<double>(weights[s]) * static_cast<double>(std::log(weights[s]));
  }
  work.entropy[head] += entropy;
}

// Writes what has been added up for one head of a sequence.
void write_head(const ScoreWork& work, const bl_attention_args& args, int64_t sequence, int64_t head,
                int64_t own, int64_t keys, int64_t observed) {
  const double* const sums = work.sums + own * work.stride;
  const double* const squares = work.squares + own * work.stride;
  const auto columns = [&](const bl_tensor& tensor, const double* from) {
    if (tensor.data == nullptr) return;
    float* row = score_row(tensor, sequence, head);
    for (int64_t s = 0; s < tensor.shape[2]; ++s) row[s] = s < keys ? static_cast<float>(from[s]) : 0;
  };
  columns(args.score_sums, sums);
  columns(args.score_squares, squares);
  const double count = static_cast<double>(std::max<int64_t>(observed, 1));
  if (args.score_entropy.data != nullptr) {
    *score_row(args.score_entropy, sequence, head) = static_cast<float>(work.entropy[own] / count);
  }
  if (args.score_variance.data == nullptr) return;
  double variance = 0;
  for (int64_t s = 0; s < keys; ++s) {
    const double mean = sums[s] / count;
    const double of_key = squares[s] / count - mean * mean;
    variance += of_key < 0 ? 0 : of_key;  // rounding
  }
  *score_row(args.score_variance, sequence, head) =
      static_cast<float>(variance / static_cast<double>(std::max<int64_t>(keys, 1)));
}

// The call as tasks of [task] see it: their weights go to the thread's own memory.
AttentionCall call_of_task(const AttentionCall& call, const AttentionTask& task, const ScoreWork& work,
                           int64_t keys, bool writes_output) {
  AttentionCall own = call;
  const int64_t queries = task.query_end - task.query_begin;
  const int64_t first = call.first_query(task.sequence_begin) + task.query_begin;
  own.probabilities.dtype = BL_DTYPE_f32;
  own.probabilities.rank = 3;
  own.probabilities.shape[2] = keys;
  own.probabilities.strides[0] = queries * work.stride;
  own.probabilities.strides[1] = work.stride;
  own.probabilities.strides[2] = 1;
  // Rows are addressed by head and query of the call.
  own.probabilities.data = reinterpret_cast<void*>(
      reinterpret_cast<uintptr_t>(work.weights) -
      static_cast<uintptr_t>((task.head_begin * queries + first) * work.stride) * sizeof(float));
  if (writes_output) return own;
  own.weights_only = true;
  own.lse.data = nullptr;
  own.output.data = work.output;
  own.output.dtype = BL_DTYPE_f32;
  own.output.strides[0] = own.output.strides[1] = 0;
  own.output.strides[2] = 1;
  return own;
}

// All observed queries of some heads of one kv head of a sequence.
void score_heads(const AttentionCall& call, const AttentionKernelRow& kernel, const bl_attention_args& args,
                 AttentionTask task, int64_t queries_per_task, const ScoreWork& work, bool writes_output) {
  const int64_t sequence = task.sequence_begin;
  const int64_t heads = task.head_end - task.head_begin;
  const int64_t queries = call.query_count(sequence);
  const int64_t observed = observed_queries(call, args, sequence);
  const int64_t keys = call.keys(sequence, task.head_begin / call.group());
  std::fill(work.sums, work.sums + heads * work.stride, 0.0);
  std::fill(work.squares, work.squares + heads * work.stride, 0.0);
  std::fill(work.entropy, work.entropy + heads, 0.0);
  for (int64_t query = queries - observed; query < queries; query += queries_per_task) {
    task.query_begin = query;
    task.query_end = std::min(query + queries_per_task, queries);
    std::fill(work.weights, work.weights + task.rows() * work.stride, -__builtin_inff());
    kernel.run(call_of_task(call, task, work, keys, writes_output), task, work.kernel);
    const float* row = work.weights;
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t t = task.query_begin; t < task.query_end; ++t, row += work.stride) {
        add_row(work, args, row, head, keys);
      }
    }
  }
  for (int64_t head = 0; head < heads; ++head) {
    write_head(work, args, sequence, task.head_begin + head, head, keys, observed);
  }
}

}  // namespace

bl_status run_scores(const AttentionCall& call, const AttentionKernelRow& kernel,
                     const bl_attention_args& args, const bl_run& run, bool writes_output, bl_error* error) {
  const int64_t heads = std::min(call.group(), kernel.max_heads);
  const int64_t queries_per_task = std::max<int64_t>(kernel.max_rows / heads, 1);
  const int64_t parts = (call.group() + heads - 1) / heads;
  int64_t longest = 0;
  for (int64_t sequence = 0; sequence < call.sequences; ++sequence) {
    for (int64_t head = 0; head < call.kv_heads; ++head)
      longest = std::max(longest, call.keys(sequence, head));
  }
  const int64_t count = call.sequences * call.kv_heads * parts;
  const int64_t slots = std::min<int64_t>(std::max<int64_t>(count, 1), thread_count(run));
  const auto work = [&](uint8_t* memory) {
    return ScoreWork(call, kernel, longest, heads, heads * queries_per_task, memory);
  };
  const uint64_t bytes = work(nullptr).bytes * static_cast<uint64_t>(slots);
  const Scratch scratch(bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "attention: cannot allocate %llu bytes for scores",
           static_cast<unsigned long long>(bytes));
  std::atomic<int64_t> next{0};
  parallel_for(run, slots, [&](int64_t slot) {
    const ScoreWork own = work(scratch.data() + static_cast<uint64_t>(slot) * work(nullptr).bytes);
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      const int64_t kv_head = i / parts % call.kv_heads, sequence = i / parts / call.kv_heads;
      AttentionTask task{};
      task.sequence_begin = sequence;
      task.sequence_end = sequence + 1;
      task.head_begin = kv_head * call.group() + i % parts * heads;
      task.head_end = std::min(task.head_begin + heads, (kv_head + 1) * call.group());
      task.chunk_end = -1;
      score_heads(call, kernel, args, task, queries_per_task, own, writes_output);
    }
  });
  return BL_STATUS_ok;
}

}  // namespace bitloom
