// attention: validate, choose a kernel, cut into tasks, run, join what was cut along the keys.
#include <algorithm>
#include <atomic>
#include <cstdio>

#include "../../base/backend.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "kernel.h"
#include "plan.h"
#include "prompt.h"
#include "scores.h"
#include "validate.h"

namespace bitloom {

namespace {

const AttentionKernelRow kKernels[] = {
#define BL_ATTENTION_KERNEL(isa, compute, takes, max_heads, max_rows, chunks) \
  {"attention_" #compute "_" #isa,                                            \
   BL_ISA_##isa,                                                              \
   BL_COMPUTE_##compute,                                                      \
   takes,                                                                     \
   max_heads,                                                                 \
   max_rows,                                                                  \
   chunks,                                                                    \
   isa::attention_##compute,                                                  \
   isa::attention_join_##compute,                                             \
   isa::attention_scratch_bytes_##compute},
#include "kernels.inc"
#undef BL_ATTENTION_KERNEL
};

// Multiply-adds below which waking other threads costs more than it brings (about 10 microseconds).
constexpr double kSerialWork = 1 << 17;

// A better mode than asked for is allowed: f32 serves all.
bool serves(int32_t kernel, int32_t asked) { return kernel == asked || kernel == BL_COMPUTE_f32; }

const AttentionKernelRow& choose(const AttentionCall& call, const bl_attention_args& args) {
  const int32_t isa = isa_of(args.run);
  const AttentionKernelRow* chosen = nullptr;
  for (const AttentionKernelRow& row : kKernels) {
    const char* reason = row.isa > isa                        ? "ISA level"
                         : !serves(row.compute, args.compute) ? "compute mode"
                         : !row.takes(call)                   ? "strides, pages or rope"
                                                              : nullptr;
    if (verbose_dispatch()) {
      std::fprintf(stderr, "bitloom: attention %lld queries: %s: %s\n", static_cast<long long>(call.queries),
                   row.name, reason == nullptr ? "taken" : reason);
    }
    if (reason == nullptr) {
      chosen = &row;
      break;
    }
  }
  return *chosen;  // the scalar row takes everything
}

double work_of(const AttentionCall& call) {
  double work = 0;
  for (int64_t sequence = 0; sequence < call.sequences; ++sequence) {
    work += static_cast<double>(call.query_count(sequence)) * static_cast<double>(call.keys(sequence, 0));
  }
  return work * static_cast<double>(call.heads) * static_cast<double>(call.head_dim + call.value_dim);
}

void clear_probabilities(const AttentionCall& call) {
  for (int64_t head = 0; head < call.heads; ++head) {
    for (int64_t query = 0; query < call.queries; ++query) {
      float* row = probability_row(call, query, head);
      std::fill(row, row + call.probabilities.shape[2], -__builtin_inff());
    }
  }
}

// All of a call by the kernels of single tasks.
bl_status run_tasks(const AttentionCall& call, const bl_attention_args& args, bl_error* error) {
  const AttentionKernelRow& kernel = choose(call, args);
  bl_run run = args.run;
  if (work_of(call) < kSerialWork) run.threads = 1;
  const AttentionPlan plan(call, kernel, thread_count(run));
  // A workspace for each thread, which stays in its cache; each takes the next task that nobody has.
  const int64_t slots = std::min<int64_t>(std::max<int64_t>(plan.task_count(), 1), thread_count(run));
  const uint64_t slot_bytes = align_up(kernel.scratch_bytes(call, plan.max_rows()));
  const uint64_t task_bytes = align_up(static_cast<uint64_t>(plan.task_count()) * sizeof(AttentionTask));
  const uint64_t state_bytes = align_up(static_cast<uint64_t>(plan.state_floats()) * sizeof(float));
  const uint64_t bytes = static_cast<uint64_t>(slots) * slot_bytes + task_bytes + state_bytes;
  const Scratch scratch(bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "attention: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(bytes));
  AttentionTask* tasks = reinterpret_cast<AttentionTask*>(scratch.data());
  float* states = reinterpret_cast<float*>(scratch.data() + task_bytes);
  uint8_t* memory = scratch.data() + task_bytes + state_bytes;
  plan.write(tasks, states);
  if (call.probabilities.data != nullptr) clear_probabilities(call);
  std::atomic<int64_t> next{0};
  parallel_for(run, slots, [&](int64_t slot) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < plan.task_count();) {
      kernel.run(call, tasks[i], memory + static_cast<uint64_t>(slot) * slot_bytes);
    }
  });
  if (plan.chunk_slots() == 0) return BL_STATUS_ok;
  std::atomic<int64_t> next_join{0};
  parallel_for(run, slots, [&](int64_t slot) {
    uint8_t* own = memory + static_cast<uint64_t>(slot) * slot_bytes;
    int64_t sequence = 0;
    for (int64_t i; (i = next_join.fetch_add(1, std::memory_order_relaxed)) < call.queries * call.kv_heads;) {
      const int64_t query = i / call.kv_heads, kv_head = i % call.kv_heads;
      while (query >= call.first_query(sequence + 1)) ++sequence;
      for (int64_t head = kv_head * call.group(); head < (kv_head + 1) * call.group(); ++head) {
        const float* row = states + (query * call.heads + head) * plan.chunk_slots() * state_floats(call);
        kernel.join(call, query, head, row, plan.chunks(sequence, kv_head), own);
      }
    }
  });
  return BL_STATUS_ok;
}

// Sequences [begin, end) of a call as one of their own. offsets [end - begin + 1]: room.
AttentionCall part_of(const AttentionCall& call, int64_t begin, int64_t end, int32_t* offsets) {
  AttentionCall part = call;
  const int64_t first = call.first_query(begin);
  const auto advance = [](bl_tensor* tensor, int axis, int64_t steps) {
    if (tensor->data == nullptr) return;
    const int64_t bytes = steps * tensor->strides[axis] * dtype_bytes(tensor->dtype);
    tensor->data = static_cast<uint8_t*>(tensor->data) + bytes;
    tensor->shape[axis] -= steps;
  };
  for (bl_tensor* rows : {&part.q, &part.output, &part.lse}) advance(rows, 0, first);
  for (bl_tensor* columns : {&part.mask, &part.probabilities}) advance(columns, 1, first);
  part.sequences = end - begin;
  part.queries = call.first_query(end) - first;
  if (call.cu_queries != nullptr) {
    for (int64_t i = begin; i <= end; ++i) {
      offsets[i - begin] = static_cast<int32_t>(call.first_query(i) - first);
    }
    part.cu_queries = offsets;
  }
  if (call.query_positions != nullptr) part.query_positions += first;
  part.first_sequence += begin;
  if (call.cu_keys != nullptr) part.cu_keys = call.cu_keys + begin;
  return part;
}

// Whether all queries are observed and none has a kernel of prompts: then their weights come with the output.
bool scores_come_along(const AttentionCall& call, const bl_attention_args& args) {
  if (call.probabilities.data != nullptr) return false;
  for (int64_t sequence = 0; sequence < call.sequences; ++sequence) {
    if (args.score_queries != 0 && call.query_count(sequence) > args.score_queries) return false;
    if (choose_prompt(call, sequence, args.compute, isa_of(args.run)) != nullptr) return false;
  }
  return true;
}

// Each sequence by the kernel that its own queries and values ask for, so that a row's bits do not depend on
// what else is in the call; neighbours without a kernel of prompts together.
bl_status run_attention(const AttentionCall& call, const bl_attention_args& args, bl_error* error) {
  const int32_t isa = isa_of(args.run);
  const Scratch memory(static_cast<uint64_t>(call.sequences + 1) * sizeof(int32_t));
  BL_CHECK(memory.data() != nullptr, out_of_memory, "attention: cannot allocate %llu bytes for offsets",
           static_cast<unsigned long long>(call.sequences + 1) * sizeof(int32_t));
  int32_t* const offsets = reinterpret_cast<int32_t*>(memory.data());
  int64_t begin = 0;  // of those that wait for run_tasks()
  const auto run_waiting = [&](int64_t end) {
    if (begin == end) return BL_STATUS_ok;
    return run_tasks(begin == 0 && end == call.sequences ? call : part_of(call, begin, end, offsets), args,
                     error);
  };
  for (int64_t sequence = 0; sequence < call.sequences; ++sequence) {
    const PromptKernel* prompt = choose_prompt(call, sequence, args.compute, isa);
    if (prompt == nullptr) continue;
    bool done = false;
    BL_RETURN_IF_ERROR(run_prompt(call, *prompt, args.run, sequence, &done, error));
    if (!done) continue;
    BL_RETURN_IF_ERROR(run_waiting(sequence));
    begin = sequence + 1;
  }
  return run_waiting(call.sequences);
}

bl_status run_with_scores(const AttentionCall& call, const bl_attention_args& args, bl_error* error) {
  const bool along = scores_come_along(call, args);
  if (!along && call.queries > 0) BL_RETURN_IF_ERROR(run_attention(call, args, error));
  bl_run run = args.run;
  if (work_of(call) < kSerialWork) run.threads = 1;
  return run_scores(call, choose(call, args), args, run, along, error);
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_attention(const bl_attention_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_attention_args, "attention", checked);
  BL_RETURN_IF_ERROR(check_attention_shapes(checked, error));
  BL_RETURN_IF_ERROR(check_attention_rope(checked, error));
  if (checked.run.device != 0) BL_RETURN_IF_ERROR(check_attention_on_device(checked, error));
  BL_RUN_ON_DEVICE(attention, checked);
  const Scratch indices(attention_index_bytes(checked));
  BL_CHECK(indices.data() != nullptr, out_of_memory, "attention: cannot allocate %llu bytes for indices",
           static_cast<unsigned long long>(attention_index_bytes(checked)));
  AttentionCall call;
  BL_RETURN_IF_ERROR(read_attention(checked, reinterpret_cast<int32_t*>(indices.data()), &call, error));
  if (call.heads == 0 || (call.queries == 0 && !has_scores(checked))) return BL_STATUS_ok;
  const uint64_t rope_bytes =
      checked.rope.size == 0 ? 0 : rope_table_bytes(checked.rope, call.last_position());
  const Scratch rope_memory(rope_bytes);
  BL_CHECK(rope_memory.data() != nullptr, out_of_memory, "attention: cannot allocate %llu bytes for rope",
           static_cast<unsigned long long>(rope_bytes));
  RopeTable rope;
  if (rope_bytes != 0) {
    rope = make_rope_table(checked.rope, call.last_position(), rope_memory.data());
    call.rope = &rope;
  }
  return has_scores(checked) ? run_with_scores(call, checked, error) : run_attention(call, checked, error);
}
