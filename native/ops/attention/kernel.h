// The contract of attention kernels.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../base/scratch.h"
#include "../../include/bitloom_attention.h"

namespace bitloom {

// A checked call.
struct AttentionCall {
  bl_tensor q;       // [queries, num_heads, head_dim]
  bl_tensor k;       // [keys, num_kv_heads, head_dim]
  bl_tensor v;       // [keys, num_kv_heads, value_dim]
  bl_tensor output;  // [queries, num_heads, value_dim]
  int64_t queries, keys, heads, kv_heads, head_dim, value_dim;
  float scale;
  bool causal;
  int64_t window;  // 0: all

  int64_t group() const { return heads / kv_heads; }  // query heads that share a kv head

  // Keys [first, last) that query t sees.
  int64_t last_key(int64_t t) const { return causal ? t + (keys - queries) + 1 : keys; }
  int64_t first_key(int64_t t) const { return window == 0 ? 0 : std::max<int64_t>(last_key(t) - window, 0); }
};

// A piece of the result: some query heads, all of one kv head, at some queries.
struct AttentionTask {
  int64_t head_begin, head_end;
  int64_t query_begin, query_end;
};

// Computes a task: for each query t and head h,
//   w[s] = exp(x[s] - max x), x[s] = scale * (q[t, h] . k[s, g]), output = sum_s w[s] * v[s, g] / sum_s w[s]
// over the keys s that t sees, of which there is at least one. A NaN or +infinity among the x, or only
// -infinity, gives NaN. Keys and values that are not seen never touch the result, NaN or not.
// Pure: no allocation, no threads, no errors. Bits depend on the task, not on other tasks.
// `memory` is `scratch_bytes` bytes, aligned to 64.
using AttentionKernel = void (*)(const AttentionCall& call, const AttentionTask& task, uint8_t* memory);

struct AttentionKernelRow {
  const char* name;
  int32_t isa;
  bool (*takes)(const AttentionCall& call);
  int64_t max_heads;    // of a task
  int64_t max_queries;  // of a task, times its heads at most `max_rows`
  int64_t max_rows;
  AttentionKernel run;
  uint64_t (*scratch_bytes)(const AttentionCall& call, int64_t rows);  // of the largest task
};

inline bool has_any_strides(const AttentionCall&) { return true; }
inline bool has_unit_strides(const AttentionCall& call) {
  return (call.head_dim == 1 || (call.q.strides[2] == 1 && call.k.strides[2] == 1)) &&
         (call.value_dim == 1 || call.v.strides[2] == 1);
}

#define BL_ATTENTION_KERNEL(isa, strides, max_heads, max_queries, max_rows)              \
  namespace isa {                                                                        \
  void attention(const AttentionCall& call, const AttentionTask& task, uint8_t* memory); \
  uint64_t attention_scratch_bytes(const AttentionCall& call, int64_t rows);             \
  }
#include "kernels.inc"
#undef BL_ATTENTION_KERNEL

}  // namespace bitloom
