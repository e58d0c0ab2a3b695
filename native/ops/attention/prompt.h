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
  int64_t chunk;
  int64_t before;         // keys of segments before
  const uint8_t* packed;  // the chunk's keys and values
};

constexpr int64_t kPromptRows = 32;

struct PromptKernel {
  const char* name;
  int32_t isa;
  int32_t compute;
  bool (*takes)(const AttentionCall& call);
  uint64_t (*packed_bytes)(const AttentionCall& call);   // of a chunk
  uint64_t (*scratch_bytes)(const AttentionCall& call);  // of packing and of a task
  // Packs chunk `chunk` of a segment. False if a value is not finite: then weights of 0 would not keep it
  // out, and the call must run another way.
  bool (*pack)(const AttentionCall& call, int64_t sequence, int64_t kv_head, int32_t segment, int64_t chunk,
               uint8_t* packed, uint8_t* memory);
  // Adds a chunk to the states of a task's rows, state [rows][state_floats()] (m in units of log2).
  void (*run)(const AttentionCall& call, const PromptTask& task, float* state, uint8_t* memory);
  // Writes output and lse of `rows` rows (query, head) that begin at the task's first, from their states.
  void (*finish)(const AttentionCall& call, const PromptTask& task, float* state);
};

// The kernel that a call's prompt takes; null: none.
const PromptKernel* choose_prompt(const AttentionCall& call, int32_t compute, int32_t isa);

// Runs the call. *done false: it could not (a value is not finite), and nothing was written.
bl_status run_prompt(const AttentionCall& call, const PromptKernel& kernel, const bl_run& run, bool* done,
                     bl_error* error);

#if defined(__x86_64__)
namespace amx {
bool takes_prompt_bf16(const AttentionCall& call);
uint64_t prompt_packed_bytes_bf16(const AttentionCall& call);
uint64_t prompt_scratch_bytes_bf16(const AttentionCall& call);
bool pack_prompt_bf16(const AttentionCall& call, int64_t sequence, int64_t kv_head, int32_t segment,
                      int64_t chunk, uint8_t* packed, uint8_t* memory);
void run_prompt_bf16(const AttentionCall& call, const PromptTask& task, float* state, uint8_t* memory);
void finish_prompt_bf16(const AttentionCall& call, const PromptTask& task, float* state);
}  // namespace amx
#endif

}  // namespace bitloom
