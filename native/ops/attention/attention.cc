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
                         : !row.takes(call)                   ? "strides"
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

bl_status run_attention(const AttentionCall& call, const bl_attention_args& args, bl_error* error) {
  if (const PromptKernel* prompt = choose_prompt(call, args.compute, isa_of(args.run)); prompt != nullptr) {
    bool done = false;
    BL_RETURN_IF_ERROR(run_prompt(call, *prompt, args.run, &done, error));
    if (done) return BL_STATUS_ok;
  }
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

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_attention(const bl_attention_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_attention_args, "attention", checked);
  BL_RETURN_IF_ERROR(check_attention_shapes(checked, error));
  if (checked.run.device != 0) BL_RETURN_IF_ERROR(check_attention_on_device(checked, error));
  BL_RUN_ON_DEVICE(attention, checked);
  const Scratch indices(attention_index_bytes(checked));
  BL_CHECK(indices.data() != nullptr, out_of_memory, "attention: cannot allocate %llu bytes for indices",
           static_cast<unsigned long long>(attention_index_bytes(checked)));
  AttentionCall call;
  BL_RETURN_IF_ERROR(read_attention(checked, reinterpret_cast<int32_t*>(indices.data()), &call, error));
  if (call.queries == 0 || call.heads == 0) return BL_STATUS_ok;
  return run_attention(call, checked, error);
}
