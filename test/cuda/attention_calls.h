// A call of attention on both sides, and its bounds.
#pragma once

#include <cmath>

#include "cuda/backend.h"
#include "tensors.h"

namespace bitloom::cuda::testing {

struct AttentionCase {
  int64_t queries = 1, keys = 40, heads = 4, kv_heads = 2, head_dim = 16, value_dim = 0;  // 0: as head_dim
  int32_t q = BL_DTYPE_f32, kv = BL_DTYPE_f32, output = BL_DTYPE_f32;
  int32_t causal = 0, window = 0;
  bool strided = false;  // keys of a cache [kv_heads, capacity, head_dim], gaps elsewhere
  float scale = 0, largest = 1;
  // Not negative: of `keys` rows so many are the sequence's, as a number in device memory says.
  int64_t key_count = -1;
  std::string name = "";
};

// Channels of a head strided by 2 would make every view plain; a gap keeps a wide view wide.
inline std::vector<int64_t> strides_of(bool strided, int64_t tokens, int64_t heads, int64_t width) {
  if (!strided) return {};
  return {width, (tokens + 3) * width, 1 + 0 * heads};
}

inline void attend(TestQueue& queue, const AttentionCase& c,
                   const std::function<void(Tensor&, Tensor&, Tensor&)>& change = nullptr) {
  const int64_t value_dim = c.value_dim == 0 ? c.head_dim : c.value_dim;
  Tensor q(queue, c.q, {c.queries, c.heads, c.head_dim},
           strides_of(c.strided, c.queries, c.heads, c.head_dim));
  Tensor k(queue, c.kv, {c.keys, c.kv_heads, c.head_dim},
           strides_of(c.strided, c.keys, c.kv_heads, c.head_dim));
  Tensor v(queue, c.kv, {c.keys, c.kv_heads, value_dim},
           strides_of(c.strided, c.keys, c.kv_heads, value_dim));
  Tensor output(queue, c.output, {c.queries, c.heads, value_dim},
                strides_of(c.strided, c.queries, c.heads, value_dim));
  q.uniform(1, c.largest);
  k.uniform(2, c.largest);
  v.uniform(3, c.largest);
  if (change) change(q, k, v);
  bl_attention_args args{};
  args.size = sizeof(args);
  args.run.isa = BL_ISA_scalar;
  args.q = q.device(), args.k = k.device(), args.v = v.device(), args.output = output.device();
  args.scale = c.scale, args.causal = c.causal, args.window = c.window;
  Tensor cu_queries(queue, BL_DTYPE_i32, {2}), cu_keys(queue, BL_DTYPE_i32, {2});
  if (c.key_count >= 0) {
    cu_queries.integers({0, static_cast<int32_t>(c.queries)});
    cu_keys.integers({0, static_cast<int32_t>(c.key_count)});
    args.cu_queries = cu_queries.device(), args.cu_keys = cu_keys.device();
  }
  bl_error error{};
  const std::string what =
      "attention" + c.name + " " + std::to_string(c.queries) + "x" + std::to_string(c.keys) +
      (c.key_count < 0 ? "" : " (" + std::to_string(c.key_count) + ")") + " heads " +
      std::to_string(c.heads) + "/" + std::to_string(c.kv_heads) + " dims " + std::to_string(c.head_dim) +
      "/" + std::to_string(value_dim) + " dtype " + std::to_string(c.kv);
  queue.launches.clear();
  check_ok(attention(queue, args, &error), error, what);
  args.q = q.host(), args.k = k.host(), args.v = v.host(), args.output = output.host();
  if (c.key_count >= 0) args.cu_queries = cu_queries.host(), args.cu_keys = cu_keys.host();
  check_ok(bl_attention(&args, &error), error, what + " on the CPU");
  std::vector<float> expected;
  for (int64_t i = 0; i < output.size(); ++i) expected.push_back(output.host_value(i));
  // Scores are sums of head_dim products; exp makes their error relative. Weights and sums add some tens of
  // units.
  const double score = c.largest * c.largest * std::sqrt(static_cast<double>(c.head_dim));
  const double bound = (40 + 8 * score) * 0x1p-24 * c.largest;
  check_close(output, expected, epsilon_of(c.output), bound, what);
  check(queue.scratch_in_use() == 0, what + ": scratch is left");
}

}  // namespace bitloom::cuda::testing
