// A checked call from its arguments: what decides addresses is copied, then checked.
#include <cmath>

#include "scores.h"
#include "validate_parts.h"

namespace bitloom {

namespace {

int64_t index_count(const bl_tensor& tensor) { return tensor.data == nullptr ? 0 : element_count(tensor); }

// Copies a tensor of i32 in row-major order and makes the tensor describe the copy.
void copy_index(bl_tensor* tensor, int32_t** next) {
  if (tensor->data == nullptr) return;
  const int64_t* shape = tensor->shape;
  const int32_t* data = static_cast<const int32_t*>(tensor->data);
  int32_t* copy = *next;
  const int64_t counts[3] = {shape[0], tensor->rank > 1 ? shape[1] : 1, tensor->rank > 2 ? shape[2] : 1};
  const int64_t steps[3] = {tensor->strides[0], tensor->rank > 1 ? tensor->strides[1] : 0,
                            tensor->rank > 2 ? tensor->strides[2] : 0};
  for (int64_t i = 0; i < counts[0]; ++i) {
    for (int64_t j = 0; j < counts[1]; ++j) {
      for (int64_t l = 0; l < counts[2]; ++l) *(*next)++ = data[i * steps[0] + j * steps[1] + l * steps[2]];
    }
  }
  tensor->data = copy;
  tensor->strides[0] = counts[1] * counts[2];
  if (tensor->rank > 1) tensor->strides[1] = counts[2];
  if (tensor->rank > 2) tensor->strides[2] = 1;
}

// Every query belongs to a sequence; keys may follow that belong to none.
bl_status check_offset_values(const char* name, const int32_t* offsets, int64_t sequences, int64_t rows,
                              const char* rows_name, bool all, bl_error* error) {
  if (offsets == nullptr) return BL_STATUS_ok;
  const int32_t last = offsets[sequences];
  BL_CHECK(offsets[0] == 0 && (all ? last == rows : last <= rows), out_of_range,
           "attention: %s goes from %d to %d, expected 0 to %s%lld (= %s)", name, offsets[0], last,
           all ? "" : "at most ", ll(rows), rows_name);
  for (int64_t i = 0; i < sequences; ++i) {
    BL_CHECK(offsets[i] <= offsets[i + 1], out_of_range,
             "attention: %s[%lld] is %d, expected at least %d (the one before)", name, ll(i + 1),
             offsets[i + 1], offsets[i]);
  }
  return BL_STATUS_ok;
}

// Lengths and page numbers of a segment, as copied.
bl_status check_table(const AttentionCall& call, int32_t index, bl_error* error) {
  const bl_kv_segment& segment = *call.segments[index].paged;
  const char* recent = index == 1 ? "recent." : "";
  const int64_t pages = segment.block_table.shape[segment.block_table.rank - 1];
  const int64_t page_size = segment.keys.page_size;
  const int64_t num_pages = segment.values.data != nullptr
                                ? std::min(segment.keys.num_pages, segment.values.num_pages)
                                : segment.keys.num_pages;
  const int64_t heads = segment.block_table.rank == 3 || segment.lengths.rank == 2 ? call.kv_heads : 1;
  for (int64_t sequence = 0; sequence < call.sequences; ++sequence) {
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t length = call.segment_keys(index, sequence, head);
      BL_CHECK(length >= 0 && length <= pages * page_size, out_of_range,
               "attention: %slengths[%lld] is %lld, expected 0 to %lld (= %lld pages of %lld tokens)", recent,
               ll(sequence), ll(length), ll(pages * page_size), ll(pages), ll(page_size));
      for (int64_t token = 0; token < length; token += page_size) {
        const int64_t page = call.place(index, sequence, head, token).page;
        BL_CHECK(page >= 0 && page < num_pages, out_of_range,
                 "attention: %sblockTable[%lld][%lld] is %lld, expected 0 to %lld", recent, ll(sequence),
                 ll(token / page_size), ll(page), ll(num_pages - 1));
      }
    }
  }
  return BL_STATUS_ok;
}

// Positions of queries, and of those keys that are of a sequence.
bl_status check_positions(const AttentionCall& call, int64_t longest, bl_error* error) {
  for (int64_t query = 0; call.query_positions != nullptr && query < call.queries; ++query) {
    BL_CHECK(call.query_positions[query] >= 0, out_of_range,
             "attention: rope.queryPositions[%lld] is %d, expected at least 0", ll(query),
             call.query_positions[query]);
  }
  const bl_tensor& positions = call.key_positions;
  if (positions.data == nullptr) return BL_STATUS_ok;
  BL_CHECK(positions.rank == 1 || positions.shape[positions.rank - 1] >= longest, invalid_shape,
           "attention: rope.keyPositions.shape[%d] is %lld, expected at least %lld (the keys of the longest "
           "sequence)",
           positions.rank - 1, ll(positions.shape[positions.rank - 1]), ll(longest));
  for (int64_t sequence = 0; sequence < call.sequences; ++sequence) {
    for (int64_t head = 0; head < call.kv_heads; ++head) {
      const int32_t* const own = call.positions_of_keys(sequence, head);
      for (int64_t s = 0; s < call.keys(sequence, head); ++s) {
        BL_CHECK(own[s] >= 0, out_of_range,
                 "attention: rope.keyPositions of key %lld of sequence %lld is %d, expected at least 0",
                 ll(s), ll(sequence), own[s]);
      }
    }
  }
  return BL_STATUS_ok;
}

}  // namespace

uint64_t attention_index_bytes(const bl_attention_args& args) {
  int64_t count = index_count(args.cu_queries) + index_count(args.cu_keys) + index_count(args.windows) +
                  index_count(args.sink_counts) + index_count(args.rope.positions) +
                  index_count(args.key_positions);
  for (const bl_kv_segment& segment : args.segments) {
    if (segment.keys.data != nullptr)
      count += index_count(segment.block_table) + index_count(segment.lengths);
  }
  // The segments themselves, which the call then points to.
  return static_cast<uint64_t>(count) * sizeof(int32_t) + 2 * sizeof(bl_kv_segment);
}

bl_status read_attention(const bl_attention_args& args, int32_t* indices, AttentionCall* call,
                         bl_error* error) {
  *call = AttentionCall{};
  call->q = args.q;
  call->k = args.k;
  call->v = args.v;
  call->output = args.output;
  call->lse = args.lse;
  call->mask = args.mask;
  call->block_mask = args.block_mask;
  call->probabilities = args.probabilities;
  call->queries = args.q.shape[0];
  call->heads = args.q.shape[1];
  call->head_dim = args.q.shape[2];
  call->kv_heads = kv_heads_of(args);
  call->value_dim = value_dim_of(args);
  call->sequences = sequences_of(args);
  call->scale =
      args.scale != 0 ? args.scale : static_cast<float>(1 / std::sqrt(static_cast<double>(call->head_dim)));
  call->soft_cap = args.soft_cap;
  call->causal = args.causal != 0;
  call->window = args.window;
  call->prefix = args.prefix;
  call->causal_block = args.causal_block == 0 ? 1 : args.causal_block;
  call->sink_tokens = args.sink_tokens;
  call->block_queries = args.block_queries;
  call->block_keys = args.block_keys;
  call->slopes = static_cast<const float*>(args.slopes.data);
  call->sinks = static_cast<const float*>(args.sinks.data);
  call->segment_count = segment_count(args);

  bl_kv_segment* segments = reinterpret_cast<bl_kv_segment*>(indices);
  int32_t* next = reinterpret_cast<int32_t*>(segments + 2);
  const auto copy = [&](bl_tensor tensor) {
    copy_index(&tensor, &next);
    return static_cast<const int32_t*>(tensor.data);
  };
  call->cu_queries = copy(args.cu_queries);
  call->cu_keys = copy(args.cu_keys);
  call->query_positions = copy(args.rope.positions);
  call->key_positions = args.key_positions;
  copy_index(&call->key_positions, &next);
  call->windows = copy(args.windows);
  call->sink_counts = copy(args.sink_counts);
  BL_RETURN_IF_ERROR(check_offset_values("cuQueries", call->cu_queries, call->sequences, call->queries,
                                         "q.shape[0]", true, error));
  BL_RETURN_IF_ERROR(check_offset_values("cuKeys", call->cu_keys, call->sequences, args.k.shape[0],
                                         "k.shape[0]", false, error));
  for (int64_t head = 0; head < call->heads; ++head) {
    BL_CHECK(call->windows == nullptr || call->windows[head] >= 0, out_of_range,
             "attention: windows[%lld] is %d, expected at least 0", ll(head), call->windows[head]);
    BL_CHECK(call->sink_counts == nullptr || call->sink_counts[head] >= 0, out_of_range,
             "attention: sinkCounts[%lld] is %d, expected at least 0", ll(head), call->sink_counts[head]);
  }
  int64_t shortest = INT64_MAX, longest = 0;
  if (is_paged(args)) {
    for (int32_t i = 0; i < call->segment_count; ++i) {
      segments[i] = args.segments[i];
      copy_index(&segments[i].block_table, &next);
      copy_index(&segments[i].lengths, &next);
      call->segments[i].paged = segments + i;
      kv_page(segments[i].keys.format, false, segments[i].keys.page_size, segments[i].keys.dim,
              &call->segments[i].key_page);
      if (segments[i].values.data != nullptr) {
        kv_page(segments[i].values.format, true, segments[i].values.page_size, segments[i].values.dim,
                &call->segments[i].value_page);
      }
      BL_RETURN_IF_ERROR(check_table(*call, i, error));
    }
  }
  for (int64_t sequence = 0; sequence < call->sequences; ++sequence) {
    for (int64_t head = 0; head < call->kv_heads; ++head) {
      shortest = std::min(shortest, call->keys(sequence, head));
      longest = std::max(longest, call->keys(sequence, head));
    }
  }
  BL_CHECK(args.mask.data == nullptr || call->sequences == 0 || args.mask.shape[2] <= shortest, invalid_shape,
           "attention: mask.shape[2] is %lld, expected at most %lld (the keys of the shortest sequence)",
           ll(args.mask.shape[2]), ll(shortest));
  BL_CHECK(args.probabilities.data == nullptr || args.probabilities.shape[2] == longest, invalid_shape,
           "attention: probabilities.shape[2] is %lld, expected %lld (the keys of the longest sequence)",
           ll(args.probabilities.shape[2]), ll(longest));
  BL_RETURN_IF_ERROR(check_positions(*call, longest, error));
  return check_score_keys(args, longest, error);
}

}  // namespace bitloom
