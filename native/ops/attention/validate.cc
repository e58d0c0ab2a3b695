#include <cmath>

#include "../rope/numbers.h"
#include "scores.h"
#include "validate_parts.h"

namespace bitloom {

bl_status check_index(const char* name, const bl_tensor& tensor, uint32_t dtypes, int min_rank, int max_rank,
                      bl_error* error) {
  if (tensor.data == nullptr) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_tensor({"attention", name}, tensor, dtypes, min_rank, max_rank, error));
  BL_CHECK(reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(dtype_bytes(tensor.dtype)) == 0,
           invalid_argument,
           "attention: %s.data is not aligned to its elements, expected a multiple of %lld bytes", name,
           ll(dtype_bytes(tensor.dtype)));
  return BL_STATUS_ok;
}

namespace {

bl_status check_offsets(const char* name, const bl_tensor& tensor, int64_t sequences, bl_error* error) {
  BL_RETURN_IF_ERROR(check_index(name, tensor, dtype_bit(BL_DTYPE_i32), 1, 1, error));
  if (tensor.data == nullptr) return BL_STATUS_ok;
  return check_dim({"attention", name}, tensor, 0, sequences + 1, "sequences + 1", error);
}

bl_status check_head_vector(const char* name, const bl_tensor& tensor, int32_t dtype, int64_t heads,
                            bl_error* error) {
  BL_RETURN_IF_ERROR(
      check_optional_vector({"attention", name}, tensor, dtype_bit(dtype), heads, "q.shape[1]", error));
  return check_index(name, tensor, dtype_bit(dtype), 1, 1, error);
}

bl_status check_numbers(const bl_attention_args& args, bl_error* error) {
  BL_CHECK(std::isfinite(args.scale), out_of_range, "attention: scale is %g, expected a finite number",
           args.scale);
  BL_CHECK(args.causal == 0 || args.causal == 1, invalid_argument, "attention: causal is %d, expected 0 or 1",
           args.causal);
  BL_CHECK(args.window >= 0, out_of_range, "attention: window is %d, expected at least 0", args.window);
  BL_CHECK(args.compute >= BL_COMPUTE_f32 && args.compute <= BL_COMPUTE_bf16, invalid_argument,
           "attention: compute is %d, expected f32, i8 or bf16", args.compute);
  BL_CHECK(std::isfinite(args.soft_cap) && args.soft_cap >= 0, out_of_range,
           "attention: softCap is %g, expected a finite number of at least 0", args.soft_cap);
  BL_CHECK(args.prefix >= 0 && args.causal_block >= 0 && args.sink_tokens >= 0, out_of_range,
           "attention: prefix is %d, causalBlock %d, sinkTokens %d, expected at least 0", args.prefix,
           args.causal_block, args.sink_tokens);
  BL_CHECK(args.causal == 1 || (args.prefix == 0 && args.causal_block == 0), invalid_argument,
           "attention: prefix is %d and causalBlock %d, expected 0 when not causal", args.prefix,
           args.causal_block);
  return BL_STATUS_ok;
}

}  // namespace

bl_status check_attention_shapes(const bl_attention_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_tensor({"attention", "q"}, args.q, kFloatTypes, 3, 3, error));
  BL_CHECK(args.q.shape[2] >= 1, invalid_shape, "attention: q.shape[2] is 0, expected at least 1");
  BL_RETURN_IF_ERROR(check_output({"attention", "output"}, args.output, kFloatTypes, 3, 3, error));
  BL_RETURN_IF_ERROR(check_keys(args, error));
  const int64_t kv_heads = kv_heads_of(args);
  BL_CHECK(args.q.shape[1] % kv_heads == 0, invalid_shape,
           "attention: q.shape[1] is %lld, expected a multiple of %lld (= %s)", ll(args.q.shape[1]),
           ll(kv_heads), is_paged(args) ? "kv heads of the pages" : "k.shape[1]");
  BL_RETURN_IF_ERROR(
      check_dim({"attention", "output"}, args.output, 0, args.q.shape[0], "q.shape[0]", error));
  BL_RETURN_IF_ERROR(
      check_dim({"attention", "output"}, args.output, 1, args.q.shape[1], "q.shape[1]", error));
  BL_RETURN_IF_ERROR(check_dim({"attention", "output"}, args.output, 2, value_dim_of(args),
                               is_paged(args) ? "channels of a value" : "v.shape[2]", error));
  const int64_t sequences = sequences_of(args), queries = args.q.shape[0], heads = args.q.shape[1];
  if (args.cu_queries.data != nullptr) {
    BL_CHECK(args.cu_queries.rank == 1 && args.cu_queries.shape[0] >= 1, invalid_shape,
             "attention: cuQueries is not a vector of at least 1 offset");
  }
  BL_RETURN_IF_ERROR(check_offsets("cuQueries", args.cu_queries, sequences, error));
  BL_RETURN_IF_ERROR(check_offsets("cuKeys", args.cu_keys, sequences, error));
  BL_CHECK(args.cu_queries.data != nullptr || (sequences == 0 ? queries == 0 : queries % sequences == 0),
           invalid_shape,
           "attention: q.shape[0] is %lld, expected a multiple of %lld (= sequences) without cuQueries",
           ll(queries), ll(sequences));
  BL_RETURN_IF_ERROR(check_numbers(args, error));
  BL_RETURN_IF_ERROR(check_head_vector("slopes", args.slopes, BL_DTYPE_f32, heads, error));
  BL_RETURN_IF_ERROR(check_head_vector("sinks", args.sinks, BL_DTYPE_f32, heads, error));
  BL_RETURN_IF_ERROR(check_head_vector("windows", args.windows, BL_DTYPE_i32, heads, error));
  BL_RETURN_IF_ERROR(check_head_vector("sinkCounts", args.sink_counts, BL_DTYPE_i32, heads, error));
  BL_RETURN_IF_ERROR(check_masks(args, error));
  return check_outputs(args, error);
}

bl_status check_attention_rope(bl_attention_args& args, bl_error* error) {
  const bl_tensor &queries = args.rope.positions, &keys = args.key_positions;
  if (args.rope.size == 0) {
    BL_CHECK(queries.data == nullptr && keys.data == nullptr, invalid_argument,
             "attention: positions are given without rope, expected both or none");
    return BL_STATUS_ok;
  }
  BL_CHECK(args.rope.size == sizeof(bl_rope_args), invalid_argument,
           "attention: rope.size is %zu, expected 0 or sizeof(bl_rope_args)", args.rope.size);
  BL_RETURN_IF_ERROR(check_rope_numbers({"attention", "rope.", "rope.freq_factors"}, args.q.shape[2],
                                        args.run.device, args.rope, error));
  BL_RETURN_IF_ERROR(check_index("rope.queryPositions", queries, dtype_bit(BL_DTYPE_i32), 1, 1, error));
  if (queries.data != nullptr) {
    BL_RETURN_IF_ERROR(
        check_dim({"attention", "rope.queryPositions"}, queries, 0, args.q.shape[0], "q.shape[0]", error));
  }
  if (keys.data == nullptr) return BL_STATUS_ok;
  const Argument name{"attention", "rope.keyPositions"};
  const bool paged = is_paged(args);
  BL_RETURN_IF_ERROR(
      check_index(name.name, keys, dtype_bit(BL_DTYPE_i32), paged ? 2 : 1, paged ? 3 : 1, error));
  if (!paged) return check_dim(name, keys, 0, args.k.shape[0], "k.shape[0]", error);
  BL_RETURN_IF_ERROR(check_dim(name, keys, 0, sequences_of(args), "sequences", error));
  if (keys.rank == 2) return BL_STATUS_ok;
  return check_dim(name, keys, 1, kv_heads_of(args), "kv heads", error);
}

bl_status check_attention_on_device(const bl_attention_args& args, bl_error* error) {
  const bool plain =
      !is_paged(args) && sequences_of(args) == 1 && args.soft_cap == 0 && args.slopes.data == nullptr &&
      args.sinks.data == nullptr && args.mask.data == nullptr && args.block_mask.data == nullptr &&
      args.prefix == 0 && args.causal_block <= 1 && args.sink_tokens == 0 && args.windows.data == nullptr &&
      args.sink_counts.data == nullptr && args.lse.data == nullptr && args.probabilities.data == nullptr &&
      !has_scores(args) && args.rope.size == 0 && (args.causal == 1 || args.window == 0) &&
      args.k.shape[0] >= 1 && (args.causal == 0 || args.q.shape[0] <= args.k.shape[0]);
  BL_CHECK(plain, unsupported,
           "attention: on a device, expected q, k and v of one sequence, no more queries than keys, and of "
           "the options "
           "only scale, causal and window");
  return BL_STATUS_ok;
}

}  // namespace bitloom
