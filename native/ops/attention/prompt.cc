#include "prompt.h"

#include <algorithm>
#include <atomic>
#include <cstdio>

#include "../../base/error.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"

namespace bitloom {

namespace {

const PromptKernel kPromptKernels[] = {
#if defined(__x86_64__)
    {"attention_prompt_bf16_amx", BL_ISA_amx, BL_COMPUTE_bf16, amx::takes_prompt_bf16,
     amx::prompt_packed_bytes_bf16, amx::prompt_scratch_bytes_bf16, amx::pack_prompt_bf16,
     amx::run_prompt_bf16, amx::finish_prompt_bf16},
#endif
    {nullptr, 0, 0, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr},
};

// Chunks that are packed at once: more of them keep threads busy longer, fewer stay in the caches.
constexpr int64_t kPackedChunks = 2;
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
  uint64_t packed_bytes, slot_bytes, state_floats;
  int64_t slots;
  uint8_t* packed;  // [kPackedChunks][kv heads]
  uint8_t* slot;
  float* states;  // [tasks of a sequence][kPromptRows]
};

bool run_sequence(const AttentionCall& call, const PromptKernel& kernel, const bl_run& run, int64_t sequence,
                  const Memory& memory) {
  const Pieces pieces(call, sequence);
  const uint64_t task_floats = kPromptRows * memory.state_floats;
  const auto own = [&](int64_t slot) {
    return memory.slot + static_cast<uint64_t>(slot) * memory.slot_bytes;
  };
  parallel_for(run, pieces.count, [&](int64_t i) {
    float* state = memory.states + static_cast<uint64_t>(i) * task_floats;
    std::fill(state, state + task_floats, 0.0f);
    for (int64_t row = 0; row < kPromptRows; ++row)
      state[static_cast<uint64_t>(row) * memory.state_floats] = -__builtin_inff();
  });
  for (int32_t segment = 0; segment < call.segment_count; ++segment) {
    int64_t longest = 0;
    for (int64_t head = 0; head < call.kv_heads; ++head) {
      longest = std::max(longest, call.segment_keys(segment, sequence, head));
    }
    for (int64_t first = 0; first < ceil_div(longest, kKeyChunk); first += kPackedChunks) {
      const int64_t packs = kPackedChunks * call.kv_heads;
      const int64_t pack_slots = std::min(packs, memory.slots);
      std::atomic<bool> finite{true};
      parallel_for(run, pack_slots, [&](int64_t slot) {
        for (int64_t i = slot; i < packs; i += pack_slots) {
          const int64_t head = i / kPackedChunks, chunk = first + i % kPackedChunks;
          if (chunk * kKeyChunk >= call.segment_keys(segment, sequence, head)) continue;
          uint8_t* packed = memory.packed + static_cast<uint64_t>(i) * memory.packed_bytes;
          if (!kernel.pack(call, sequence, head, segment, chunk, packed, own(slot))) finite = false;
        }
      });
      if (!finite) return false;
      const int64_t slots = std::min(pieces.count, memory.slots);
      parallel_for(run, slots, [&](int64_t slot) {
        for (int64_t i = slot; i < pieces.count; i += slots) {
          PromptTask task = pieces.task(sequence, i);
          task.segment = segment;
          task.before = segment == 0 ? 0 : call.segment_keys(0, sequence, task.kv_head);
          for (int64_t j = 0; j < kPackedChunks; ++j) {
            task.chunk = first + j;
            if (task.chunk * kKeyChunk >= call.segment_keys(segment, sequence, task.kv_head)) break;
            task.packed =
                memory.packed + static_cast<uint64_t>(task.kv_head * kPackedChunks + j) * memory.packed_bytes;
            kernel.run(call, task, memory.states + static_cast<uint64_t>(i) * task_floats, own(slot));
          }
        }
      });
    }
  }
  return true;
}

}  // namespace

const PromptKernel* choose_prompt(const AttentionCall& call, int32_t compute, int32_t isa) {
  for (const PromptKernel& kernel : kPromptKernels) {
    if (kernel.name == nullptr) break;
    const char* reason = kernel.isa > isa            ? "ISA level"
                         : compute == BL_COMPUTE_f32 ? "compute mode"
                         : !kernel.takes(call)       ? "shape or options"
                                                     : nullptr;
    if (verbose_dispatch()) {
      std::fprintf(stderr, "bitloom: attention %lld queries: %s: %s\n", static_cast<long long>(call.queries),
                   kernel.name, reason == nullptr ? "taken" : reason);
    }
    if (reason == nullptr) return &kernel;
  }
  return nullptr;
}

bl_status run_prompt(const AttentionCall& call, const PromptKernel& kernel, const bl_run& run, bool* done,
                     bl_error* error) {
  *done = false;
  int64_t tasks = 0;
  for (int64_t sequence = 0; sequence < call.sequences; ++sequence) {
    tasks += Pieces(call, sequence).count;
  }
  Memory memory{};
  memory.state_floats = static_cast<uint64_t>(state_floats(call));
  memory.packed_bytes = align_up(kernel.packed_bytes(call));
  memory.slot_bytes = align_up(kernel.scratch_bytes(call));
  memory.slots = kMaxSlots;
  const uint64_t packed = static_cast<uint64_t>(kPackedChunks * call.kv_heads) * memory.packed_bytes;
  const uint64_t slots = static_cast<uint64_t>(memory.slots) * memory.slot_bytes;
  // All sequences' states are kept, so that nothing is written before all keys have been seen.
  const uint64_t states = static_cast<uint64_t>(tasks) * kPromptRows * memory.state_floats * sizeof(float);
  const Scratch scratch(packed + slots + states);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "attention: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(packed + slots + states));
  memory.packed = scratch.data();
  memory.slot = scratch.data() + packed;
  float* const all_states = reinterpret_cast<float*>(scratch.data() + packed + slots);
  memory.states = all_states;
  for (int64_t sequence = 0; sequence < call.sequences; ++sequence) {
    if (!run_sequence(call, kernel, run, sequence, memory)) return BL_STATUS_ok;
    memory.states += static_cast<uint64_t>(Pieces(call, sequence).count) * kPromptRows * memory.state_floats;
  }
  memory.states = all_states;
  for (int64_t sequence = 0; sequence < call.sequences; ++sequence) {
    const Pieces pieces(call, sequence);
    parallel_for(run, pieces.count, [&](int64_t i) {
      kernel.finish(call, pieces.task(sequence, i),
                    memory.states + static_cast<uint64_t>(i) * kPromptRows * memory.state_floats);
    });
    memory.states += static_cast<uint64_t>(pieces.count) * kPromptRows * memory.state_floats;
  }
  *done = true;
  return BL_STATUS_ok;
}

}  // namespace bitloom
