#include "scores.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "../../base/error.h"
#include "../../base/scratch.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "validate_parts.h"

namespace bitloom {

namespace {

// Pieces of work for each thread at least: fewer leave a thread idle at the end for long.
constexpr int64_t kItemsPerThread = 4;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// base + offset, where what lies between need not be memory of ours.
float* behind(float* base, int64_t offset) {
  return reinterpret_cast<float*>(reinterpret_cast<uintptr_t>(base) +
                                  static_cast<uintptr_t>(offset) * sizeof(float));
}

int64_t observed_queries(const AttentionCall& call, const bl_attention_args& args, int64_t sequence) {
  const int64_t queries = call.query_count(sequence);
  return args.score_queries == 0 ? queries : std::min<int64_t>(queries, args.score_queries);
}

float* score_row(const bl_tensor& tensor, int64_t sequence, int64_t head) {
  return static_cast<float*>(tensor.data) + sequence * tensor.strides[0] + head * tensor.strides[1];
}

AddWeights choose_add_weights(int32_t isa) {
  constexpr struct {
    int32_t isa;
    AddWeights run;
  } kKernels[] = {
#define BL_SCORE_KERNEL(isa) {BL_ISA_##isa, isa::add_weights},
#include "score_kernels.inc"
#undef BL_SCORE_KERNEL
  };
  for (const auto& kernel : kKernels) {
    if (kernel.isa <= isa) return kernel.run;
  }
  return nullptr;  // not reached: the scalar row takes all
}

// A task: some heads of one kv head of a sequence, their observed queries in blocks. Its memory: the weights
// and states of a block's rows, and what has been added up of its heads.
struct TaskMemory {
  float* weights;   // [rows][stride]
  float* states;    // [rows][slots][state_floats()]
  double* sums;     // [heads][stride]
  double* squares;  // [heads][stride]
  double* logs;     // [heads][stride]
};
// And a thread's.
struct ThreadMemory {
  float* output;    // [value_dim], where results go that are not wanted
  uint8_t* kernel;  // the kernel's own
};

// A chunk of the keys of a sequence and kv head.
struct KeyChunk {
  int32_t segment;
  int64_t index;       // in its segment
  int64_t first, end;  // keys of the sequence
};

// Writes what has been added up for one head of a sequence.
void write_head(const TaskMemory& memory, const bl_attention_args& args, int64_t sequence, int64_t head,
                int64_t own, int64_t stride, int64_t keys, int64_t observed) {
  const double* const sums = memory.sums + own * stride;
  const double* const squares = memory.squares + own * stride;
  const double* const logs = memory.logs + own * stride;
  const auto columns = [&](const bl_tensor& tensor, const double* from) {
    if (tensor.data == nullptr) return;
    float* row = score_row(tensor, sequence, head);
    for (int64_t s = 0; s < tensor.shape[2]; ++s) row[s] = s < keys ? static_cast<float>(from[s]) : 0;
  };
  columns(args.score_sums, sums);
  columns(args.score_squares, squares);
  const double count = static_cast<double>(std::max<int64_t>(observed, 1));
  if (args.score_entropy.data != nullptr) {
    double entropy = 0;
    for (int64_t s = 0; s < keys; ++s) entropy -= logs[s];
    *score_row(args.score_entropy, sequence, head) = static_cast<float>(entropy / count);
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

class Scores {
 public:
  Scores(const AttentionCall& call, const AttentionKernelRow& kernel, const bl_attention_args& args,
         const bl_run& run, bool writes_output);
  bl_status run(bl_error* error);

 private:
  int64_t sequence_of(int64_t task) const { return task / parts_ / call_.kv_heads; }
  int64_t kv_head_of(int64_t task) const { return task / parts_ % call_.kv_heads; }
  int64_t keys_of(int64_t task) const { return call_.keys(sequence_of(task), kv_head_of(task)); }
  int64_t observed(int64_t task) const { return observed_queries(call_, args_, sequence_of(task)); }
  int64_t blocks(int64_t task) const { return ceil_div(observed(task), queries_per_task_); }
  int64_t chunks(int64_t task) const;
  KeyChunk chunk(int64_t task, int64_t slot) const;
  // Whether a task's chunks have states, which are joined.
  bool is_split(int64_t task) const { return kernel_.chunks && chunks(task) > 1; }
  AttentionTask block_of(int64_t task, int64_t block) const;
  AttentionCall call_of(const AttentionTask& block, int64_t keys, const TaskMemory& memory,
                        float* output) const;

  // Weights of a block's rows: scores and states of a chunk; those joined for a row; added up for a chunk.
  void attend(int64_t task, int64_t block, int64_t slot, const TaskMemory& memory,
              const ThreadMemory& own) const;
  void join(int64_t task, int64_t block, int64_t row, const TaskMemory& memory,
            const ThreadMemory& own) const;
  void add(int64_t task, int64_t block, int64_t slot, const TaskMemory& memory) const;

  TaskMemory task_memory(uint8_t* memory, uint64_t* bytes) const;
  ThreadMemory thread_memory(uint8_t* memory, uint64_t* bytes) const;

  const AttentionCall& call_;
  const AttentionKernelRow& kernel_;
  const bl_attention_args& args_;
  const bl_run& run_;
  AddWeights add_weights_;
  bool writes_output_;
  int64_t heads_per_task_, queries_per_task_, parts_, tasks_;
  int64_t rows_;             // of a block
  int64_t stride_;           // of rows of weights
  int64_t most_chunks_ = 1;  // of a task
};

Scores::Scores(const AttentionCall& call, const AttentionKernelRow& kernel, const bl_attention_args& args,
               const bl_run& run, bool writes_output)
    : call_(call),
      kernel_(kernel),
      args_(args),
      run_(run),
      add_weights_(choose_add_weights(isa_of(args.run))),
      writes_output_(writes_output),
      heads_per_task_(std::min(call.group(), kernel.max_heads)),
      queries_per_task_(std::max<int64_t>(kernel.max_rows / heads_per_task_, 1)),
      parts_(ceil_div(call.group(), heads_per_task_)),
      tasks_(call.sequences * call.kv_heads * parts_),
      rows_(heads_per_task_ * queries_per_task_) {
  int64_t longest = 0;
  for (int64_t task = 0; task < tasks_; task += parts_) {
    longest = std::max(longest, keys_of(task));
    most_chunks_ = std::max(most_chunks_, chunks(task));
  }
  stride_ = (longest + 15) / 16 * 16;
}

int64_t Scores::chunks(int64_t task) const {
  int64_t count = 0;
  for (int32_t i = 0; i < call_.segment_count; ++i) {
    count += ceil_div(call_.segment_keys(i, sequence_of(task), kv_head_of(task)), kKeyChunk);
  }
  return count;
}

KeyChunk Scores::chunk(int64_t task, int64_t slot) const {
  int64_t before = 0;
  for (int32_t segment = 0;; ++segment) {
    const int64_t keys = call_.segment_keys(segment, sequence_of(task), kv_head_of(task));
    const int64_t count = ceil_div(keys, kKeyChunk);
    if (slot < count) {
      return {segment, slot, before + slot * kKeyChunk, before + std::min((slot + 1) * kKeyChunk, keys)};
    }
    slot -= count;
    before += keys;
  }
}

// Of a task's observed queries the next few, over all keys.
AttentionTask Scores::block_of(int64_t task, int64_t block) const {
  AttentionTask of{};
  const int64_t queries = call_.query_count(sequence_of(task));
  of.sequence_begin = sequence_of(task);
  of.sequence_end = of.sequence_begin + 1;
  of.head_begin = kv_head_of(task) * call_.group() + task % parts_ * heads_per_task_;
  of.head_end = std::min(of.head_begin + heads_per_task_, (kv_head_of(task) + 1) * call_.group());
  of.query_begin = queries - observed(task) + block * queries_per_task_;
  of.query_end = std::min(of.query_begin + queries_per_task_, queries);
  of.chunk_end = -1;
  return of;
}

// The call as a block's rows see it: their weights go to the task's own memory.
AttentionCall Scores::call_of(const AttentionTask& block, int64_t keys, const TaskMemory& memory,
                              float* output) const {
  AttentionCall own = call_;
  const int64_t queries = block.query_end - block.query_begin;
  const int64_t first = call_.first_query(block.sequence_begin) + block.query_begin;
  own.probabilities.dtype = BL_DTYPE_f32;
  own.probabilities.rank = 3;
  own.probabilities.shape[2] = keys;
  own.probabilities.strides[0] = queries * stride_;
  own.probabilities.strides[1] = stride_;
  own.probabilities.strides[2] = 1;
  // Rows are addressed by head and query of the call.
  own.probabilities.data = behind(memory.weights, -(block.head_begin * queries + first) * stride_);
  if (writes_output_) return own;
  own.weights_only = true;
  own.lse.data = nullptr;
  own.output.data = output;
  own.output.dtype = BL_DTYPE_f32;
  own.output.strides[0] = own.output.strides[1] = 0;
  own.output.strides[2] = 1;
  return own;
}

void Scores::attend(int64_t task, int64_t block, int64_t slot, const TaskMemory& memory,
                    const ThreadMemory& own) const {
  const bool split = is_split(task);
  if (slot > 0 && !split) return;  // the first does all
  AttentionTask part = block_of(task, block);
  const int64_t keys = keys_of(task);
  KeyChunk range{0, 0, 0, keys};
  if (split) {
    range = chunk(task, slot);
    part.segment = range.segment;
    part.chunk_begin = range.index;
    part.chunk_end = range.index + 1;
    part.state_heads = part.head_end - part.head_begin;
    part.state_stride = most_chunks_ * state_floats(call_);
    const int64_t first = call_.first_query(part.sequence_begin) + part.query_begin;
    part.state = behind(memory.states, slot * state_floats(call_) -
                                           (first * part.state_heads + part.head_begin) * part.state_stride);
  }
  for (int64_t row = 0; row < part.rows(); ++row) {
    float* weights = memory.weights + row * stride_;
    std::fill(weights + range.first, weights + range.end, -__builtin_inff());
  }
  kernel_.run(call_of(part, keys, memory, own.output), part, own.kernel);
}

void Scores::join(int64_t task, int64_t block, int64_t row, const TaskMemory& memory,
                  const ThreadMemory& own) const {
  const AttentionTask part = block_of(task, block);
  if (row >= part.rows()) return;
  const int64_t heads = part.head_end - part.head_begin;
  const int64_t query = call_.first_query(part.sequence_begin) + part.query_begin + row / heads;
  kernel_.join(call_of(part, keys_of(task), memory, own.output), query, part.head_begin + row % heads,
               memory.states + row * most_chunks_ * state_floats(call_), chunks(task), own.kernel);
}

void Scores::add(int64_t task, int64_t block, int64_t slot, const TaskMemory& memory) const {
  const AttentionTask part = block_of(task, block);
  const KeyChunk range = chunk(task, slot);
  const int64_t queries = part.query_end - part.query_begin;
  for (int64_t row = 0; row < part.rows(); ++row) {
    const int64_t to = row / queries * stride_ + range.first;
    add_weights_(memory.weights + row * stride_ + range.first, range.end - range.first, memory.sums + to,
                 memory.squares + to, args_.score_entropy.data == nullptr ? nullptr : memory.logs + to);
  }
}

TaskMemory Scores::task_memory(uint8_t* memory, uint64_t* bytes) const {
  uint8_t* next = memory;
  const auto take = [&](auto** pointer, int64_t count) {
    *pointer = reinterpret_cast<std::remove_reference_t<decltype(*pointer)>>(next);
    next += align_up(static_cast<uint64_t>(count) * sizeof(**pointer));
  };
  TaskMemory own;
  take(&own.weights, rows_ * stride_);
  take(&own.states, most_chunks_ > 1 && kernel_.chunks ? rows_ * most_chunks_ * state_floats(call_) : 0);
  take(&own.sums, heads_per_task_ * stride_);
  take(&own.squares, heads_per_task_ * stride_);
  take(&own.logs, heads_per_task_ * stride_);
  *bytes = static_cast<uint64_t>(next - memory);
  return own;
}

ThreadMemory Scores::thread_memory(uint8_t* memory, uint64_t* bytes) const {
  const uint64_t output = align_up(static_cast<uint64_t>(call_.value_dim) * sizeof(float));
  *bytes = output + align_up(kernel_.scratch_bytes(call_, rows_));
  return {reinterpret_cast<float*>(memory), memory + output};
}

bl_status Scores::run(bl_error* error) {
  // Tasks at once: enough for threads to share, and no more, so that weights stay in their caches.
  const int64_t threads = thread_count(run_);
  const int64_t together =
      std::clamp<int64_t>(ceil_div(kItemsPerThread * threads, most_chunks_), 1, std::max<int64_t>(tasks_, 1));
  uint64_t task_bytes = 0, thread_bytes = 0;
  task_memory(nullptr, &task_bytes);
  thread_memory(nullptr, &thread_bytes);
  const uint64_t bytes =
      static_cast<uint64_t>(together) * task_bytes + static_cast<uint64_t>(threads) * thread_bytes;
  const Scratch scratch(bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "attention: cannot allocate %llu bytes for scores",
           static_cast<unsigned long long>(bytes));
  uint8_t* const threads_at = scratch.data() + static_cast<uint64_t>(together) * task_bytes;

  for (int64_t first = 0; first < tasks_; first += together) {
    const int64_t count = std::min(together, tasks_ - first);
    const auto memory_of = [&](int64_t i) {
      uint64_t size = 0;
      return task_memory(scratch.data() + static_cast<uint64_t>(i) * task_bytes, &size);
    };
    // body(task, item, its memory, the thread's) for items [0, each) of each task, shared by threads.
    const auto share = [&](int64_t each, auto&& body) {
      std::atomic<int64_t> next{0};
      parallel_for(run_, std::min(threads, count * each), [&](int64_t thread) {
        uint64_t size = 0;
        const ThreadMemory own =
            thread_memory(threads_at + static_cast<uint64_t>(thread) * thread_bytes, &size);
        for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count * each;) {
          body(first + i / each, i % each, memory_of(i / each), own);
        }
      });
    };
    int64_t most_blocks = 0;
    bool any_split = false;
    for (int64_t task = first; task < first + count; ++task) {
      most_blocks = std::max(most_blocks, blocks(task));
      any_split |= is_split(task);
    }
    share(heads_per_task_, [&](int64_t, int64_t head, const TaskMemory& memory, const ThreadMemory&) {
      for (double* sums : {memory.sums, memory.squares, memory.logs}) {
        std::fill(sums + head * stride_, sums + (head + 1) * stride_, 0.0);
      }
    });
    for (int64_t block = 0; block < most_blocks; ++block) {
      share(most_chunks_, [&](int64_t task, int64_t slot, const TaskMemory& memory, const ThreadMemory& own) {
        if (block < blocks(task) && slot < std::max<int64_t>(chunks(task), 1))
          attend(task, block, slot, memory, own);
      });
      if (any_split) {
        share(rows_, [&](int64_t task, int64_t row, const TaskMemory& memory, const ThreadMemory& own) {
          if (block < blocks(task) && is_split(task)) join(task, block, row, memory, own);
        });
      }
      share(most_chunks_, [&](int64_t task, int64_t slot, const TaskMemory& memory, const ThreadMemory&) {
        if (block < blocks(task) && slot < chunks(task)) add(task, block, slot, memory);
      });
    }
    share(heads_per_task_, [&](int64_t task, int64_t head, const TaskMemory& memory, const ThreadMemory&) {
      const AttentionTask part = block_of(task, 0);
      if (part.head_begin + head >= part.head_end) return;
      write_head(memory, args_, part.sequence_begin, part.head_begin + head, head, stride_, keys_of(task),
                 observed(task));
    });
  }
  return BL_STATUS_ok;
}

}  // namespace

bl_status run_scores(const AttentionCall& call, const AttentionKernelRow& kernel,
                     const bl_attention_args& args, const bl_run& run, bool writes_output, bl_error* error) {
  return Scores(call, kernel, args, run, writes_output).run(error);
}

}  // namespace bitloom
