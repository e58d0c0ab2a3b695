#include "prompt.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>

#include "../../base/error.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"

namespace bitloom {

namespace {

const PromptKernel kPromptKernels[] = {
#define BL_PROMPT_KERNEL(isa, compute)    \
  {"attention_prompt_" #compute "_" #isa, \
   BL_ISA_##isa,                          \
   BL_COMPUTE_##compute,                  \
   isa::takes_prompt_##compute,           \
   isa::prompt_packed_bytes_##compute,    \
   isa::prompt_scratch_bytes_##compute,   \
   isa::pack_prompt_##compute,            \
   isa::run_prompt_##compute},
#include "prompt_kernels.inc"
#undef BL_PROMPT_KERNEL
};

// Rows of a sequence below which most of a tile stays empty, and packing costs more than it saves.
constexpr int64_t kMinRows = 32;
// Workspaces at most; as many as threads, so that bits do not depend on their number.
constexpr int64_t kMaxSlots = 64;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The rows of a sequence in tasks: by kv head, part of its heads, block of queries.
struct Pieces {
  int64_t queries, group, heads_per_task, queries_per_task, parts, blocks, count;

  Pieces(const AttentionCall& call, int64_t sequence)
      : queries(call.query_count(sequence)),
        group(call.group()),
        heads_per_task(std::min<int64_t>(group, kPromptRows)),
        queries_per_task(std::max<int64_t>(kPromptRows / heads_per_task, 1)),
        parts(ceil_div(group, heads_per_task)),
        blocks(ceil_div(queries, queries_per_task)),
        count(call.kv_heads * parts * blocks) {}

  PromptTask task(int64_t sequence, int64_t i) const {
    PromptTask task{};
    const int64_t block = i % blocks;
    const int64_t part = i / blocks % parts;
    task.sequence = sequence;
    task.kv_head = i / blocks / parts;
    task.head_begin = task.kv_head * group + part * heads_per_task;
    task.head_end = std::min(task.head_begin + heads_per_task, (task.kv_head + 1) * group);
    task.query_begin = block * queries_per_task;
    task.query_end = std::min(task.query_begin + queries_per_task, queries);
    return task;
  }
};

// Memory of a call.
struct Memory {
  uint64_t packed_bytes, slot_bytes, task_floats;
  int64_t slots;
  uint8_t* packed;  // [kv heads][kPackedChunks]
  uint8_t* slot;
  float* states;  // [tasks][kPromptRows][prompt_state_floats()]

  uint8_t* own(int64_t index) const { return slot + static_cast<uint64_t>(index) * slot_bytes; }
  uint8_t* chunk(int64_t index) const { return packed + static_cast<uint64_t>(index) * packed_bytes; }
  float* state(int64_t task) const { return states + static_cast<uint64_t>(task) * task_floats; }
};

// Packs chunks [first, first + kPackedChunks) of a segment. False if a value is not finite.
bool pack(const AttentionCall& call, const PromptKernel& kernel, const bl_run& run, int64_t sequence,
          int32_t segment, int64_t first, const Memory& memory) {
  const int64_t count = kPackedChunks * call.kv_heads;
  const int64_t slots = std::min(count, memory.slots);
  std::atomic<bool> finite{true};
  parallel_for(run, slots, [&](int64_t slot) {
    for (int64_t i = slot; i < count; i += slots) {
      const int64_t head = i / kPackedChunks, chunk = first + i % kPackedChunks;
      if (chunk * kKeyChunk >= call.segment_keys(segment, sequence, head)) continue;
      if (!kernel.pack(call, sequence, head, segment, chunk, memory.chunk(i), memory.own(slot)))
        finite = false;
    }
  });
  return finite;
}

// All tasks of a sequence over packed chunks.
void run_tasks(const AttentionCall& call, const PromptKernel& kernel, const bl_run& run, int64_t sequence,
               int32_t segment, int64_t first, const Memory& memory) {
  const Pieces pieces(call, sequence);
  const int64_t slots = std::min(pieces.count, memory.slots);
  parallel_for(run, slots, [&](int64_t slot) {
    for (int64_t i = slot; i < pieces.count; i += slots) {
      PromptTask task = pieces.task(sequence, i);
      task.segment = segment;
      task.before = segment == 0 ? 0 : call.segment_keys(0, sequence, task.kv_head);
      task.chunk_begin = first;
      const int64_t chunks = ceil_div(call.segment_keys(segment, sequence, task.kv_head), kKeyChunk);
      task.chunk_end = std::min(first + kPackedChunks, chunks);
      task.packed = memory.chunk(task.kv_head * kPackedChunks);
      task.packed_bytes = memory.packed_bytes;
      if (task.chunk_begin < task.chunk_end) kernel.run(call, task, memory.state(i), memory.own(slot));
    }
  });
}

// Output and lse of a task's rows from their states.
void finish(const AttentionCall& call, const PromptTask& task, float* state) {
  constexpr float kLn2 = 0.693147181f;
  for (int64_t t = task.query_begin; t < task.query_end; ++t) {
    for (int64_t head = task.head_begin; head < task.head_end; ++head, state += prompt_state_floats(call)) {
      const int64_t query = call.first_query(task.sequence) + t;
      float maximum = state[0] * kLn2;
      float total = state[1];
      float* sums = state + 16;
      if (call.sinks != nullptr) {
        const float larger = std::max(maximum, call.sinks[head]);
        const float factor = larger == -__builtin_inff() ? 0 : std::exp(maximum - larger);
        total = total * factor + (larger == -__builtin_inff() ? 0 : std::exp(call.sinks[head] - larger));
        for (int64_t i = 0; i < call.value_dim; ++i) sums[i] *= factor;
        maximum = larger;
      }
      for (int64_t i = 0; i < call.value_dim; ++i) sums[i] = total == 0 ? 0 : sums[i] / total;
      store_values(call.output.dtype, output_row(call, query, head), call.output.strides[2], call.value_dim,
                   sums);
      if (call.lse.data != nullptr) {
        *lse_of(call, query, head) = total == 0 ? -__builtin_inff() : maximum + std::log(total);
      }
    }
  }
}

bool run_sequence(const AttentionCall& call, const PromptKernel& kernel, const bl_run& run, int64_t sequence,
                  const Memory& memory) {
  const Pieces pieces(call, sequence);
  parallel_for(run, pieces.count, [&](int64_t i) {
    float* state = memory.state(i);
    std::fill(state, state + memory.task_floats, 0.0f);
    for (int64_t row = 0; row < kPromptRows; ++row)
      state[row * prompt_state_floats(call)] = -__builtin_inff();
  });
  for (int32_t segment = 0; segment < call.segment_count; ++segment) {
    int64_t longest = 0;
    for (int64_t head = 0; head < call.kv_heads; ++head) {
      longest = std::max(longest, call.segment_keys(segment, sequence, head));
    }
    for (int64_t first = 0; first < ceil_div(longest, kKeyChunk); first += kPackedChunks) {
      if (!pack(call, kernel, run, sequence, segment, first, memory)) return false;
      run_tasks(call, kernel, run, sequence, segment, first, memory);
    }
  }
  parallel_for(run, pieces.count,
               [&](int64_t i) { finish(call, pieces.task(sequence, i), memory.state(i)); });
  return true;
}

}  // namespace

const PromptKernel* choose_prompt(const AttentionCall& call, int64_t sequence, int32_t compute, int32_t isa) {
  if (compute == BL_COMPUTE_f32) return nullptr;
  for (const PromptKernel& kernel : kPromptKernels) {
    // The scalar kernel is the specification, and slow: other levels have better ones.
    const bool level = kernel.isa == BL_ISA_scalar ? isa == BL_ISA_scalar : kernel.isa <= isa;
    const bool serves = kernel.compute == compute || kernel.compute == BL_COMPUTE_bf16;
    const char* reason = !level                                                 ? "ISA level"
                         : !serves                                              ? "compute mode"
                         : call.query_count(sequence) * call.group() < kMinRows ? "few rows"
                         : call.rope != nullptr                                 ? "rope"
                         : !kernel.takes(call)                                  ? "shape or options"
                                                                                : nullptr;
    if (verbose_dispatch()) {
      std::fprintf(stderr, "bitloom: attention %lld queries: %s: %s\n",
                   static_cast<long long>(call.query_count(sequence)), kernel.name,
                   reason == nullptr ? "taken" : reason);
    }
    if (reason == nullptr) return &kernel;
  }
  return nullptr;
}

bl_status run_prompt(const AttentionCall& call, const PromptKernel& kernel, const bl_run& run,
                     int64_t sequence, bool* done, bl_error* error) {
  *done = false;
  Memory memory{};
  memory.task_floats = static_cast<uint64_t>(kPromptRows * prompt_state_floats(call));
  memory.packed_bytes = align_up(kernel.packed_bytes(call));
  memory.slot_bytes = align_up(kernel.scratch_bytes(call));
  memory.slots = std::min<int64_t>(thread_count(run), kMaxSlots);
  const uint64_t packed = static_cast<uint64_t>(kPackedChunks * call.kv_heads) * memory.packed_bytes;
  const uint64_t slots = static_cast<uint64_t>(memory.slots) * memory.slot_bytes;
  // All rows' states are kept, so that nothing is written before all keys have been seen.
  const uint64_t states =
      static_cast<uint64_t>(Pieces(call, sequence).count) * memory.task_floats * sizeof(float);
  const Scratch scratch(packed + slots + states);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "attention: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(packed + slots + states));
  memory.packed = scratch.data();
  memory.slot = scratch.data() + packed;
  memory.states = reinterpret_cast<float*>(scratch.data() + packed + slots);
  *done = run_sequence(call, kernel, run, sequence, memory);
  return BL_STATUS_ok;
}

}  // namespace bitloom
