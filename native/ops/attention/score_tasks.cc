#include "score_tasks.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "../../base/scratch.h"
#include "../../isa/isa.h"

namespace bitloom {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// base + offset, where what lies between need not be memory of ours.
float* behind(float* base, int64_t offset) {
  return reinterpret_cast<float*>(reinterpret_cast<uintptr_t>(base) +
                                  static_cast<uintptr_t>(offset) * sizeof(float));
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

}  // namespace

ScoreTasks::ScoreTasks(const AttentionCall& call, const AttentionKernelRow& kernel,
                       const bl_attention_args& args, bool writes_output)
    : call_(call),
      kernel_(kernel),
      args_(args),
      add_weights_(choose_add_weights(isa_of(args.run))),
      writes_output_(writes_output),
      heads_(std::min(call.group(), kernel.max_heads)),
      queries_(std::max<int64_t>(kernel.max_rows / heads_, 1)),
      parts_(ceil_div(call.group(), heads_)),
      count_(call.sequences * call.kv_heads * parts_),
      rows_(heads_ * queries_) {
  int64_t longest = 0;
  for (int64_t task = 0; task < count_; task += parts_) {
    longest = std::max(longest, keys_of(task));
    most_chunks_ = std::max(most_chunks_, chunks(task));
  }
  stride_ = (longest + 15) / 16 * 16;
}

int64_t ScoreTasks::observed(int64_t task) const {
  const int64_t queries = call_.query_count(sequence_of(task));
  return args_.score_queries == 0 ? queries : std::min<int64_t>(queries, args_.score_queries);
}

int64_t ScoreTasks::blocks(int64_t task) const { return ceil_div(observed(task), queries_); }

int64_t ScoreTasks::chunks(int64_t task) const {
  int64_t count = 0;
  for (int32_t i = 0; i < call_.segment_count; ++i) {
    count += ceil_div(call_.segment_keys(i, sequence_of(task), kv_head_of(task)), kKeyChunk);
  }
  return count;
}

ScoreTasks::Chunk ScoreTasks::chunk_of(int64_t task, int64_t slot) const {
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
AttentionTask ScoreTasks::block_of(int64_t task, int64_t block) const {
  AttentionTask of{};
  const int64_t queries = call_.query_count(sequence_of(task));
  of.sequence_begin = sequence_of(task);
  of.sequence_end = of.sequence_begin + 1;
  of.head_begin = kv_head_of(task) * call_.group() + task % parts_ * heads_;
  of.head_end = std::min(of.head_begin + heads_, (kv_head_of(task) + 1) * call_.group());
  of.query_begin = queries - observed(task) + block * queries_;
  of.query_end = std::min(of.query_begin + queries_, queries);
  of.chunk_end = -1;
  return of;
}

// The call as a block's rows see it: their weights go to the task's own memory.
AttentionCall ScoreTasks::call_of(const AttentionTask& block, int64_t keys, const ScoreMemory& memory,
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

void ScoreTasks::clear(const ScoreMemory& memory, int64_t head) const {
  for (double* sums : {memory.sums, memory.squares, memory.logs}) {
    std::fill(sums + head * stride_, sums + (head + 1) * stride_, 0.0);
  }
}

void ScoreTasks::attend(int64_t task, const ScoreMemory& memory, const ScoreWorkspace& own, int64_t block,
                        int64_t slot) const {
  const bool split = is_split(task);
  // Not split: the first does all, also where there are no keys.
  if (block >= blocks(task) || slot >= (split ? chunks(task) : 1)) return;
  AttentionTask part = block_of(task, block);
  const int64_t keys = keys_of(task);
  Chunk range{0, 0, 0, keys};
  if (split) {
    range = chunk_of(task, slot);
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

void ScoreTasks::join(int64_t task, const ScoreMemory& memory, const ScoreWorkspace& own, int64_t block,
                      int64_t row) const {
  if (block >= blocks(task) || !is_split(task)) return;
  const AttentionTask part = block_of(task, block);
  if (row >= part.rows()) return;
  const int64_t heads = part.head_end - part.head_begin;
  const int64_t query = call_.first_query(part.sequence_begin) + part.query_begin + row / heads;
  kernel_.join(call_of(part, keys_of(task), memory, own.output), query, part.head_begin + row % heads,
               memory.states + row * most_chunks_ * state_floats(call_), chunks(task), own.kernel);
}

void ScoreTasks::add(int64_t task, const ScoreMemory& memory, int64_t block, int64_t slot) const {
  if (block >= blocks(task) || slot >= chunks(task)) return;
  const AttentionTask part = block_of(task, block);
  const Chunk range = chunk_of(task, slot);
  const int64_t queries = part.query_end - part.query_begin;
  for (int64_t row = 0; row < part.rows(); ++row) {
    const int64_t to = row / queries * stride_ + range.first;
    add_weights_(memory.weights + row * stride_ + range.first, range.end - range.first, memory.sums + to,
                 memory.squares + to, args_.score_entropy.data == nullptr ? nullptr : memory.logs + to);
  }
}

ScoreMemory ScoreTasks::memory(uint8_t* memory, uint64_t* bytes) const {
  uint8_t* next = memory;
  const auto take = [&](auto** pointer, int64_t count) {
    *pointer = reinterpret_cast<std::remove_reference_t<decltype(*pointer)>>(next);
    next += align_up(static_cast<uint64_t>(count) * sizeof(**pointer));
  };
  ScoreMemory own;
  take(&own.weights, rows_ * stride_);
  take(&own.states, most_chunks_ > 1 && kernel_.chunks ? rows_ * most_chunks_ * state_floats(call_) : 0);
  take(&own.sums, heads_ * stride_);
  take(&own.squares, heads_ * stride_);
  take(&own.logs, heads_ * stride_);
  *bytes = static_cast<uint64_t>(next - memory);
  return own;
}

ScoreWorkspace ScoreTasks::workspace(uint8_t* memory, uint64_t* bytes) const {
  const uint64_t output = align_up(static_cast<uint64_t>(call_.value_dim) * sizeof(float));
  *bytes = output + align_up(kernel_.scratch_bytes(call_, rows_));
  return {reinterpret_cast<float*>(memory), memory + output};
}

void ScoreTasks::write(int64_t task, const ScoreMemory& memory, int64_t own) const {
  const AttentionTask all = block_of(task, 0);
  const int64_t sequence = all.sequence_begin, head = all.head_begin + own;
  if (head >= all.head_end) return;
  const int64_t keys = keys_of(task);
  const double* const sums = memory.sums + own * stride_;
  const double* const squares = memory.squares + own * stride_;
  const double* const logs = memory.logs + own * stride_;
  const auto columns = [&](const bl_tensor& tensor, const double* from) {
    if (tensor.data == nullptr) return;
    float* row = score_row(tensor, sequence, head);
    for (int64_t s = 0; s < tensor.shape[2]; ++s) row[s] = s < keys ? static_cast<float>(from[s]) : 0;
  };
  columns(args_.score_sums, sums);
  columns(args_.score_squares, squares);
  const double count = static_cast<double>(std::max<int64_t>(observed(task), 1));
  if (args_.score_entropy.data != nullptr) {
    double entropy = 0;
    for (int64_t s = 0; s < keys; ++s) entropy -= logs[s];
    *score_row(args_.score_entropy, sequence, head) = static_cast<float>(entropy / count);
  }
  if (args_.score_variance.data == nullptr) return;
  double variance = 0;
  for (int64_t s = 0; s < keys; ++s) {
    const double mean = sums[s] / count;
    const double of_key = squares[s] / count - mean * mean;
    variance += of_key < 0 ? 0 : of_key;  // rounding
  }
  *score_row(args_.score_variance, sequence, head) =
      static_cast<float>(variance / static_cast<double>(std::max<int64_t>(keys, 1)));
}

}  // namespace bitloom
