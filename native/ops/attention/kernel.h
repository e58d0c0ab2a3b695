// The contract of attention kernels.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../base/scratch.h"
#include "../../formats/kv_page.h"
#include "../../include/bitloom_attention.h"
#include "rope_table.h"

namespace bitloom {

// Keys are taken in tiles of kKeyTile and chunks of kKeyChunk, both counted from the beginning of a segment.
// A row's sums over a chunk begin at nothing and are then joined to those of the chunks before, so that bits
// do not depend on how chunks are dealt to threads.
constexpr int64_t kKeyTile = 64;
constexpr int64_t kKeyChunk = 512;
constexpr int64_t kMaxTaskRows = 64;

// Where a stretch of keys lies: rows of k and v, or pages.
struct KeySegment {
  const bl_kv_segment* paged = nullptr;  // null: k and v of the call
  KvPage key_page{}, value_page{};
};

// A checked call.
struct AttentionCall {
  bl_tensor q;                                     // [queries, num_heads, head_dim]
  bl_tensor k;                                     // [keys, num_kv_heads, head_dim], unless paged
  bl_tensor v;                                     // [keys, num_kv_heads, value_dim]
  bl_tensor output;                                // [queries, num_heads, value_dim]
  bl_tensor lse, mask, block_mask, probabilities;  // data null: not given
  bool weights_only = false;  // probabilities are wanted, output is not: it may hold anything then
  int64_t queries, heads, kv_heads, head_dim, value_dim;
  int64_t sequences;
  int64_t first_sequence = 0;  // of those in block tables and lengths
  float scale, soft_cap;
  bool causal;
  int64_t window, prefix, causal_block, sink_tokens, block_queries, block_keys;
  const float* slopes;
  const float* sinks;
  const int32_t* windows;
  const int32_t* sink_counts;
  const int32_t* cu_queries;
  const int32_t* cu_keys;
  const RopeTable* rope = nullptr;           // null: queries and keys are taken as they stand
  const int32_t* query_positions = nullptr;  // [queries]; null: query t has t + keys - queries
  bl_tensor key_positions;                   // as bl_attention_args says; data null: key s has s
  KeySegment segments[2];
  int32_t segment_count;  // 1 unless paged with two

  int64_t group() const { return heads / kv_heads; }  // query heads that share a kv head

  int64_t first_query(int64_t sequence) const {
    return cu_queries != nullptr ? cu_queries[sequence] : sequence * (queries / sequences);
  }
  int64_t query_count(int64_t sequence) const { return first_query(sequence + 1) - first_query(sequence); }
  // Where a sequence's keys begin in k and v.
  int64_t first_key(int64_t sequence) const { return cu_keys != nullptr ? cu_keys[sequence] : 0; }
  // Where a query is, and the positions of a sequence's keys, null: those of their order. With rope alone.
  int64_t query_position(int64_t sequence, int64_t kv_head, int64_t query) const {
    if (query_positions != nullptr) return query_positions[first_query(sequence) + query];
    return query + keys(sequence, kv_head) - query_count(sequence);
  }
  int64_t last_position() const;  // the largest of all
  const int32_t* positions_of_keys(int64_t sequence, int64_t kv_head) const;
  // Keys of a segment, as a kv head has them, and of all of them.
  int64_t segment_keys(int32_t segment, int64_t sequence, int64_t kv_head) const;
  int64_t keys(int64_t sequence, int64_t kv_head) const {
    int64_t count = 0;
    for (int32_t i = 0; i < segment_count; ++i) count += segment_keys(i, sequence, kv_head);
    return count;
  }
  // The page where a token of a sequence stands, and its index there.
  struct Place {
    int64_t page, index;
  };
  Place place(int32_t segment, int64_t sequence, int64_t kv_head, int64_t token) const;
  const uint8_t* page(int32_t segment, bool values, int64_t page, int64_t kv_head) const;
};

// What one row (query and head) sees of the keys [0, keys) of its sequence, masks apart:
// [0, sink_end) and [begin, end).
struct Sight {
  int64_t sink_end, begin, end;

  Sight(const AttentionCall& call, int64_t query, int64_t queries, int64_t keys, int64_t head);

  int64_t first() const { return sink_end > 0 ? 0 : begin; }
  int64_t last() const { return std::max(sink_end, end); }
  bool nothing() const { return sink_end <= 0 && begin >= end; }
};

// A piece of the work: some query heads, all of one kv head, at some queries of a sequence; or, of several
// sequences whose keys stand in the same pages, all queries. Keys: chunks [chunk_begin, chunk_end) of a
// segment, or everything (chunk_end -1).
struct AttentionTask {
  int64_t sequence_begin, sequence_end;
  int64_t head_begin, head_end;
  int64_t query_begin, query_end;  // of each sequence; sequences of one task have equally many
  int32_t segment;
  int64_t chunk_begin, chunk_end;
  float* state;  // null: results are written. Else where the state of (query 0, head 0) over the chunk is
                 // written, those of (query of the call, head) following state_stride floats apart
  int64_t state_stride;
  int64_t state_heads;  // of a query there: all of the call, or those of the task

  int64_t rows() const {
    return (sequence_end - sequence_begin) * (head_end - head_begin) * (query_end - query_begin);
  }
};

// State of a row over some keys: maximum m, sum l of exp(x - m), 14 floats of nothing, sum of exp(x - m) * v.
inline int64_t state_floats(const AttentionCall& call) { return 16 + (call.value_dim + 15) / 16 * 16; }

// Computes a task as bl_attention_args says. probabilities hold -infinity everywhere before, and scores after
// if a state is written. Pure: no allocation, no threads, no errors. A row's bits depend on its own values,
// not on other rows or tasks. `memory` is scratch_bytes() bytes, aligned to 64.
using AttentionKernel = void (*)(const AttentionCall& call, const AttentionTask& task, uint8_t* memory);

// Joins `count` states of a row, state_floats() apart, in their order, into its output, lse and
// probabilities. query: of the call.
using AttentionJoin = void (*)(const AttentionCall& call, int64_t query, int64_t head, const float* states,
                               int64_t count, uint8_t* memory);

struct AttentionKernelRow {
  const char* name;
  int32_t isa;
  int32_t compute;
  bool (*takes)(const AttentionCall& call);
  int64_t max_heads;  // of a task
  int64_t max_rows;   // of a task: at most kMaxTaskRows
  bool chunks;        // can do one chunk of keys, and several sequences at once
  AttentionKernel run;
  AttentionJoin join;
  uint64_t (*scratch_bytes)(const AttentionCall& call, int64_t rows);  // of the largest task
};

inline bool has_any_strides(const AttentionCall&) { return true; }
inline bool has_unit_strides(const AttentionCall& call) {
  if (call.head_dim != 1 && call.q.strides[2] != 1) return false;
  if (call.segments[0].paged != nullptr) return true;
  return (call.head_dim == 1 || call.k.strides[2] == 1) && (call.value_dim == 1 || call.v.strides[2] == 1);
}

// Segments that kernels of compute i8 multiply as integers; others they compute in f32.
inline bool is_integer_segment(const KeySegment& segment) {
  const auto integers = [](const KvPage& page) {
    return page.format == BL_KV_FORMAT_i8 || page.format == BL_KV_FORMAT_i4 || page.format == BL_KV_FORMAT_i2;
  };
  // Sixteen keys are multiplied at once, and keys of `channel` share their scales by page.
  const bool has_units =
      segment.key_page.page_size % kKvUnit == 0 || segment.key_page.scale == KvScale::token;
  return segment.paged != nullptr && segment.paged->values.data != nullptr && integers(segment.key_page) &&
         integers(segment.value_page) && has_units;
}
inline bool has_integer_pages(const AttentionCall& call) {
  if (call.rope != nullptr) return false;  // codes cannot be turned
  bool any = false;
  for (int32_t i = 0; i < call.segment_count; ++i) any |= is_integer_segment(call.segments[i]);
  return any && has_unit_strides(call);
}

#define BL_ATTENTION_KERNEL(isa, compute, takes, max_heads, max_rows, chunks)                                \
  namespace isa {                                                                                            \
  void attention_##compute(const AttentionCall& call, const AttentionTask& task, uint8_t* memory);           \
  void attention_join_##compute(const AttentionCall& call, int64_t query, int64_t head, const float* states, \
                                int64_t count, uint8_t* memory);                                             \
  uint64_t attention_scratch_bytes_##compute(const AttentionCall& call, int64_t rows);                       \
  }
#include "kernels.inc"
#undef BL_ATTENTION_KERNEL

// What the scalar code of all kernels shares (call.cc).

// The score of one key after `dot` = q . k: scale, soft cap, slope and additive mask. Not what is seen.
float finish_score(const AttentionCall& call, float dot, int64_t sequence, int64_t query, int64_t head,
                   int64_t key, int64_t keys);
// What the mask and the block mask say of a key that the row's Sight has.
bool is_masked(const AttentionCall& call, int64_t sequence, int64_t query, int64_t head, int64_t key,
               int64_t keys);
inline bool has_masks(const AttentionCall& call) {
  return call.mask.data != nullptr || call.block_mask.data != nullptr;
}
// Whether finish_score does more than scale.
inline bool has_score_terms(const AttentionCall& call) {
  return call.soft_cap != 0 || call.slopes != nullptr ||
         (call.mask.data != nullptr && call.mask.dtype == BL_DTYPE_f32);
}

// Where a row's results stand.
inline uint8_t* output_row(const AttentionCall& call, int64_t query, int64_t head) {
  const int64_t bytes = call.output.dtype == BL_DTYPE_f32 ? 4 : 2;
  return static_cast<uint8_t*>(call.output.data) +
         (query * call.output.strides[0] + head * call.output.strides[1]) * bytes;
}
inline float* lse_of(const AttentionCall& call, int64_t query, int64_t head) {
  return static_cast<float*>(call.lse.data) + query * call.lse.strides[0] + head * call.lse.strides[1];
}
inline float* probability_row(const AttentionCall& call, int64_t query, int64_t head) {
  return static_cast<float*>(call.probabilities.data) + head * call.probabilities.strides[0] +
         query * call.probabilities.strides[1];
}

}  // namespace bitloom
