// The contract of linear attention kernels.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../include/bitloom_attention.h"

namespace bitloom {

// A log decay of this or less resets: exp(-200) = 2^-288 times the largest f32 is below half the smallest
// one, so that nothing of the state is left. It is set to 0, NaN and infinity too.
constexpr float kResetLog = -200;

enum class Decay : int32_t { none, head, token, channel };

// A checked call.
struct LinearAttentionCall {
  bl_tensor q;       // [tokens, num_heads, key_dim]
  bl_tensor k;       // [tokens, num_kv_heads, key_dim]
  bl_tensor v;       // [tokens, num_kv_heads, value_dim]
  bl_tensor output;  // [tokens, num_heads, value_dim]
  bl_tensor decay;  // logs: [num_kv_heads], [tokens, num_kv_heads] or [tokens, num_kv_heads, key_dim] f32, by
                    // `kind`
  bl_tensor beta;   // [tokens, num_kv_heads] f32, or data null: 1
  int64_t heads, kv_heads, key_dim, value_dim;
  int64_t chunk;  // tokens
  float scale;
  bool delta;
  Decay kind;

  int64_t group() const { return heads / kv_heads; }  // query heads that share a state

  // Log decay of a token, where it is the same for all channels.
  float log_decay(int64_t t, int64_t kv_head) const {
    if (kind == Decay::none) return 0;
    const int64_t offset =
        kind == Decay::head ? kv_head * decay.strides[0] : t * decay.strides[0] + kv_head * decay.strides[1];
    return load_as<float>(static_cast<const uint8_t*>(decay.data) + offset * 4);
  }
  // [key_dim] log decays of a token.
  void log_decays(int64_t t, int64_t kv_head, float* logs) const {
    if (kind == Decay::channel) return load_row(decay, t, kv_head, 0, key_dim, logs);
    std::fill(logs, logs + key_dim, log_decay(t, kv_head));
  }
  float beta_of(int64_t t, int64_t kv_head) const {
    if (beta.data == nullptr) return 1;
    const int64_t offset = t * beta.strides[0] + kv_head * beta.strides[1];
    return load_as<float>(static_cast<const uint8_t*>(beta.data) + offset * 4);
  }

  // values[0, count) = tensor[t, head, first + i] as f32.
  static void load_row(const bl_tensor& tensor, int64_t t, int64_t head, int64_t first, int64_t count,
                       float* values) {
    const int64_t offset = t * tensor.strides[0] + head * tensor.strides[1] + first * tensor.strides[2];
    load_values(tensor.dtype, static_cast<const uint8_t*>(tensor.data) + offset * dtype_bytes(tensor.dtype),
                tensor.strides[2], count, values);
  }
  void store_row(int64_t t, int64_t head, int64_t first, int64_t count, const float* values) const {
    const int64_t offset = t * output.strides[0] + head * output.strides[1] + first * output.strides[2];
    store_values(output.dtype, static_cast<uint8_t*>(output.data) + offset * dtype_bytes(output.dtype),
                 output.strides[2], count, values);
  }
};

// A piece of the result: some value columns of one kv head and its query heads, in one sequence.
struct LinearAttentionTask {
  int64_t token_begin, token_end;  // at least one
  int64_t kv_head;
  int64_t column_begin, column_end;
  float* state;  // [key_dim] rows of value_dim, from column_begin on; at any address

  int64_t tokens() const { return token_end - token_begin; }
  int64_t columns() const { return column_end - column_begin; }
};

// Computes a task. For each of its tokens t, with g = exp(log decay) per row of S (0 where the log is at most
// kResetLog)
//   S[i, j] = g[i] S[i, j]
//   u[j]    = v[t, j], or with the delta rule beta[t] (v[t, j] - sum_i k[t, i] S[i, j])
//   S[i, j] = S[i, j] + k[t, i] u[j]
//   output[t, h, j] = scale * sum_i q[t, h, i] S[i, j]   for the query heads h of the kv head
// Columns do not depend on each other, nor a token on those after it, NaN or not.
// Pure: no allocation, no threads, no errors. Bits depend on the tokens of the task and on call.chunk, not on
// which columns are computed together. `memory` is `scratch_bytes` bytes, aligned to 64.
using LinearAttentionKernel = void (*)(const LinearAttentionCall& call, const LinearAttentionTask& task,
                                       uint8_t* memory);

struct LinearAttentionKernelRow {
  const char* name;
  int32_t isa;
  int64_t chunk;
  LinearAttentionKernel run;
  // Of tasks with at most so many tokens and columns.
  uint64_t (*scratch_bytes)(const LinearAttentionCall& call, int64_t tokens, int64_t columns);
};

#define BL_LINEAR_ATTENTION_KERNEL(isa, chunk)                                                               \
  namespace isa {                                                                                            \
  void linear_attention(const LinearAttentionCall& call, const LinearAttentionTask& task, uint8_t* memory);  \
  uint64_t linear_attention_scratch_bytes(const LinearAttentionCall& call, int64_t tokens, int64_t columns); \
  }
#include "kernels.inc"
#undef BL_LINEAR_ATTENTION_KERNEL

}  // namespace bitloom
