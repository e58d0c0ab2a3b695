// What kernels of every level ask of a call: where keys stand, which a row sees, what becomes of a score.
#include <cmath>

#include "kernel.h"

namespace bitloom {

namespace {

// [sequences] or [sequences, kv heads] of i32.
int32_t per_head(const bl_tensor& tensor, int64_t sequence, int64_t kv_head) {
  const int64_t offset = sequence * tensor.strides[0] + (tensor.rank == 2 ? kv_head * tensor.strides[1] : 0);
  return static_cast<const int32_t*>(tensor.data)[offset];
}

// An element of [heads or 1, rows, columns].
int64_t mask_offset(const bl_tensor& mask, int64_t head, int64_t row, int64_t column) {
  return (mask.shape[0] == 1 ? 0 : head) * mask.strides[0] + row * mask.strides[1] + column * mask.strides[2];
}

}  // namespace

int64_t AttentionCall::segment_keys(int32_t segment, int64_t sequence, int64_t kv_head) const {
  const bl_kv_segment* paged = segments[segment].paged;
  if (paged != nullptr) return per_head(paged->lengths, first_sequence + sequence, kv_head);
  return cu_keys != nullptr ? cu_keys[sequence + 1] - cu_keys[sequence] : k.shape[0];
}

AttentionCall::Place AttentionCall::place(int32_t segment, int64_t sequence, int64_t kv_head,
                                          int64_t token) const {
  const bl_tensor& table = segments[segment].paged->block_table;
  const int64_t page_size = segments[segment].key_page.page_size;
  const int64_t offset = (first_sequence + sequence) * table.strides[0] +
                         (table.rank == 3 ? kv_head * table.strides[1] : 0) +
                         token / page_size * table.strides[table.rank - 1];
  return {static_cast<const int32_t*>(table.data)[offset], token % page_size};
}

const uint8_t* AttentionCall::page(int32_t segment, bool values, int64_t page, int64_t kv_head) const {
  const KeySegment& s = segments[segment];
  const bl_kv_pages& pages = values ? s.paged->values : s.paged->keys;
  const int64_t head = pages.num_heads == 1 ? 0 : kv_head;
  return static_cast<const uint8_t*>(pages.data) +
         (page * pages.num_heads + head) * (values ? s.value_page : s.key_page).bytes;
}

const int32_t* AttentionCall::positions_of_keys(int64_t sequence, int64_t kv_head) const {
  const bl_tensor& positions = key_positions;
  const int32_t* data = static_cast<const int32_t*>(positions.data);
  if (data == nullptr) return nullptr;
  if (positions.rank == 1) return data + first_key(sequence);
  return data + (first_sequence + sequence) * positions.strides[0] +
         (positions.rank == 3 ? kv_head * positions.strides[1] : 0);
}

int64_t AttentionCall::last_position() const {
  int64_t last = 0;
  for (int64_t i = 0; query_positions != nullptr && i < queries; ++i) {
    last = std::max<int64_t>(last, query_positions[i]);
  }
  for (int64_t sequence = 0; sequence < sequences; ++sequence) {
    last = std::max(last, query_count(sequence));  // more queries than keys: negative positions
    for (int64_t head = 0; head < kv_heads; ++head) {
      const int64_t count = keys(sequence, head);
      last = std::max(last, count);
      const int32_t* const own = positions_of_keys(sequence, head);
      for (int64_t s = 0; own != nullptr && s < count; ++s) last = std::max<int64_t>(last, own[s]);
    }
  }
  return last;
}

Sight::Sight(const AttentionCall& call, int64_t query, int64_t queries, int64_t keys, int64_t head) {
  const int64_t diagonal = query + keys - queries;
  int64_t seen = keys;
  if (call.causal) {
    const int64_t block = call.causal_block;
    // floor(d / b) for negative d too: such rows see at most the prefix.
    const int64_t blocks = diagonal >= 0 ? diagonal / block : -((-diagonal + block - 1) / block);
    seen = std::min(std::max((blocks + 1) * block, call.prefix), keys);
  }
  const int64_t window = call.windows != nullptr ? call.windows[head] : call.window;
  const int64_t sinks = call.sink_counts != nullptr ? call.sink_counts[head] : call.sink_tokens;
  begin = 0;
  end = std::max<int64_t>(seen, 0);
  sink_end = 0;
  if (window == 0) return;
  sink_end = std::min(sinks, end);
  begin = std::max<int64_t>(diagonal - window + 1, 0);
  if (!call.causal) end = std::max<int64_t>(std::min(end, diagonal + window), 0);
  if (begin <= sink_end) {  // one stretch; not causal, the window may end before the sinks do
    begin = sink_end > 0 ? 0 : begin;
    end = std::max(end, sink_end);
    sink_end = 0;
  }
}

float finish_score(const AttentionCall& call, float dot, int64_t sequence, int64_t query, int64_t head,
                   int64_t key, int64_t keys) {
  float x = dot * call.scale;
  if (call.soft_cap != 0) x = call.soft_cap * std::tanh(x / call.soft_cap);
  const int64_t queries = call.query_count(sequence);
  if (call.slopes != nullptr) {
    x -= call.slopes[head] * static_cast<float>(std::abs(query + keys - queries - key));
  }
  const bl_tensor& mask = call.mask;
  if (mask.data != nullptr && mask.dtype == BL_DTYPE_f32) {
    const int64_t column = key - (keys - mask.shape[2]);
    if (column >= 0) {
      x += static_cast<const float*>(
          mask.data)[mask_offset(mask, head, call.first_query(sequence) + query, column)];
    }
  }
  return x;
}

bool is_masked(const AttentionCall& call, int64_t sequence, int64_t query, int64_t head, int64_t key,
               int64_t keys) {
  const bl_tensor& mask = call.mask;
  const int64_t row = call.first_query(sequence) + query;
  if (mask.data != nullptr) {
    const int64_t column = key - (keys - mask.shape[2]);
    if (column >= 0) {
      const int64_t offset = mask_offset(mask, head, row, column);
      if (mask.dtype == BL_DTYPE_f32) {
        if (static_cast<const float*>(mask.data)[offset] == -__builtin_inff()) return true;
      } else if (static_cast<const uint8_t*>(mask.data)[offset] == 0) {
        return true;
      }
    }
  }
  const bl_tensor& blocks = call.block_mask;
  return blocks.data != nullptr &&
         static_cast<const uint8_t*>(
             blocks.data)[mask_offset(blocks, head, row / call.block_queries, key / call.block_keys)] == 0;
}

}  // namespace bitloom
