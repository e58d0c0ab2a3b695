// What the checks of a call share: validate.cc (numbers, vectors, all together), validate_keys.cc (keys,
// values, pages), validate_outputs.cc (masks and what is written), read_call.cc (what decides addresses,
// copied and checked).
#pragma once

#include "../../base/tensor.h"
#include "validate.h"

namespace bitloom {

inline long long ll(int64_t value) { return static_cast<long long>(value); }

inline bool is_paged(const bl_attention_args& args) { return args.segments[0].keys.data != nullptr; }
inline int32_t segment_count(const bl_attention_args& args) {
  return args.segments[1].keys.data != nullptr ? 2 : 1;
}

inline int64_t kv_heads_of(const bl_attention_args& args) {
  if (!is_paged(args)) return args.k.shape[1];
  const bl_kv_segment& segment = args.segments[0];
  return segment.block_table.rank == 3 ? segment.block_table.shape[1] : segment.keys.num_heads;
}
inline int64_t sequences_of(const bl_attention_args& args) {
  if (is_paged(args)) return args.segments[0].block_table.shape[0];
  return args.cu_queries.data != nullptr ? args.cu_queries.shape[0] - 1 : 1;
}
inline int64_t value_dim_of(const bl_attention_args& args) {
  if (!is_paged(args)) return args.v.shape[2];
  return args.segments[0].values.data != nullptr ? args.segments[0].values.dim : args.output.shape[2];
}

// A tensor that is read through its element type, hence aligned; data NULL is "not given".
bl_status check_index(const char* name, const bl_tensor& tensor, uint32_t dtypes, int min_rank, int max_rank,
                      bl_error* error);

bl_status check_keys(const bl_attention_args& args, bl_error* error);
bl_status check_masks(const bl_attention_args& args, bl_error* error);
// Shapes of lse and probabilities; that nothing written overlaps what is read.
bl_status check_outputs(const bl_attention_args& args, bl_error* error);

}  // namespace bitloom
