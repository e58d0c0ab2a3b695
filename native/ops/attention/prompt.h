// Attention of many queries: keys and values of a chunk are packed once for the matrix unit and serve all
// rows of their kv head, in whatever format they are kept.
#pragma once

#include "kernel.h"

namespace bitloom {

struct PromptTask {
  int64_t sequence, kv_head;
  int64_t head_begin, head_end;    // of one kv head
  int64_t query_begin, query_end;  // of the sequence; rows (query, head): at most kPromptRows
  int32_t segment;
  int64_t chunk_begin, chunk_end;
  int64_t before;         // keys of segments before
  const uint8_t* packed;  // the chunks' keys and values
  uint64_t packed_bytes;  // from chunk to chunk

  const uint8_t* chunk(int64_t index) const {
    return packed + static_cast<uint64_t>(index - chunk_begin) * packed_bytes;
  }
};

constexpr int64_t kPromptRows = 32;

// Chunks that are packed at once: more of them keep threads busy longer and products and weights side by side,
// fewer stay in the caches.
constexpr int64_t kPackedChunks = 4;

// State of a row over some keys: base m in units of log2, sum l of 2^(x - m), 14 floats of nothing, sum of
// 2^(x - m) * v, with room for whole pairs of tiles.
inline int64_t prompt_state_floats(const AttentionCall& call) { return 16 + (call.value_dim + 31) / 32 * 32; }

struct PromptKernel {
  const char* name;
  int32_t isa;
  int32_t compute;
  bool (*takes)(const AttentionCall& call);
  uint64_t (*packed_bytes)(const AttentionCall& call);   // of a chunk
  uint64_t (*scratch_bytes)(const AttentionCall& call);  // of packing and of a task
  // Packs chunk `chunk` of a segment. False if a value is not finite (in integers: a key too): then weights
  // of 0 would not keep it out, and the sequence must be computed another way.
  bool (*pack)(const AttentionCall& call, int64_t sequence, int64_t kv_head, int32_t segment, int64_t chunk,
               uint8_t* packed, uint8_t* memory);
  // Adds chunks to the states of a task's rows, state [rows][prompt_state_floats()].
  void (*run)(const AttentionCall& call, const PromptTask& task, float* state, uint8_t* memory);
};

// The kernel that a sequence's queries take; null: none.
const PromptKernel* choose_prompt(const AttentionCall& call, int64_t sequence, int32_t compute, int32_t isa);

// Runs a sequence of the call. *done false: it could not (a value is not finite), and nothing was written.
bl_status run_prompt(const AttentionCall& call, const PromptKernel& kernel, const bl_run& run,
                     int64_t sequence, bool* done, bl_error* error);

#define BL_PROMPT_KERNEL(isa, compute)                                                                       \
  namespace isa {                                                                                            \
  bool takes_prompt_##compute(const AttentionCall& call);                                                    \
  uint64_t prompt_packed_bytes_##compute(const AttentionCall& call);                                         \
  uint64_t prompt_scratch_bytes_##compute(const AttentionCall& call);                                        \
  bool pack_prompt_##compute(const AttentionCall& call, int64_t sequence, int64_t kv_head, int32_t segment,  \
                             int64_t chunk, uint8_t* packed, uint8_t* memory);                               \
  void run_prompt_##compute(const AttentionCall& call, const PromptTask& task, float* state, uint8_t* memory); \
  }
#include "prompt_kernels.inc"
#undef BL_PROMPT_KERNEL

}  // namespace bitloom
