// Checks of masks and of what a call writes.
#include "scores.h"
#include "validate_parts.h"

namespace bitloom {

namespace {

bl_status check_extra(const char* name, const bl_tensor& tensor, int rank, bl_error* error) {
  BL_RETURN_IF_ERROR(check_output({"attention", name}, tensor, dtype_bit(BL_DTYPE_f32), rank, rank, error));
  return check_index(name, tensor, dtype_bit(BL_DTYPE_f32), rank, rank, error);
}

// That an output shares no memory with what is read.
bl_status check_apart_from_inputs(const char* name, const bl_tensor& output, const bl_attention_args& args,
                                  bl_error* error) {
  const struct {
    const char* name;
    const bl_tensor& tensor;
  } inputs[] = {{"q", args.q},
                {"k", args.k},
                {"v", args.v},
                {"mask", args.mask},
                {"blockMask", args.block_mask},
                {"slopes", args.slopes},
                {"sinks", args.sinks}};
  for (const auto& input : inputs) {
    BL_RETURN_IF_ERROR(
        check_apart({"attention", name}, output, input.name, input.tensor.data, input.tensor.bytes, error));
  }
  const char* const pages[2][2] = {{"keys", "values"}, {"recent.keys", "recent.values"}};
  for (int i = 0; i < 2; ++i) {
    const bl_kv_segment& segment = args.segments[i];
    BL_RETURN_IF_ERROR(
        check_apart({"attention", name}, output, pages[i][0], segment.keys.data, segment.keys.bytes, error));
    BL_RETURN_IF_ERROR(check_apart({"attention", name}, output, pages[i][1], segment.values.data,
                                   segment.values.bytes, error));
  }
  return BL_STATUS_ok;
}

}  // namespace

bl_status check_masks(const bl_attention_args& args, bl_error* error) {
  const int64_t queries = args.q.shape[0], heads = args.q.shape[1];
  if (args.mask.data != nullptr) {
    BL_RETURN_IF_ERROR(
        check_index("mask", args.mask, dtype_bit(BL_DTYPE_u8) | dtype_bit(BL_DTYPE_f32), 3, 3, error));
    BL_CHECK(args.mask.shape[0] == 1 || args.mask.shape[0] == heads, invalid_shape,
             "attention: mask.shape[0] is %lld, expected 1 or %lld (= q.shape[1])", ll(args.mask.shape[0]),
             ll(heads));
    BL_RETURN_IF_ERROR(check_dim({"attention", "mask"}, args.mask, 1, queries, "q.shape[0]", error));
  }
  if (args.block_mask.data == nullptr) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_index("blockMask", args.block_mask, dtype_bit(BL_DTYPE_u8), 3, 3, error));
  BL_CHECK(args.block_queries >= 1 && args.block_keys >= 1, out_of_range,
           "attention: blockMask is of blocks of %d queries and %d keys, expected at least 1 of each",
           args.block_queries, args.block_keys);
  BL_CHECK(!is_paged(args) && args.cu_queries.data == nullptr, unsupported,
           "attention: blockMask is given with several sequences or pages, expected k and v of one sequence");
  BL_CHECK(args.block_mask.shape[0] == 1 || args.block_mask.shape[0] == heads, invalid_shape,
           "attention: blockMask.shape[0] is %lld, expected 1 or %lld (= q.shape[1])",
           ll(args.block_mask.shape[0]), ll(heads));
  const auto blocks = [](int64_t n, int64_t size) { return n / size + (n % size != 0 ? 1 : 0); };
  BL_RETURN_IF_ERROR(check_dim({"attention", "blockMask"}, args.block_mask, 1,
                               blocks(queries, args.block_queries), "ceil(queries / blockQueries)", error));
  return check_dim({"attention", "blockMask"}, args.block_mask, 2, blocks(args.k.shape[0], args.block_keys),
                   "ceil(keys / blockKeys)", error);
}

bl_status check_outputs(const bl_attention_args& args, bl_error* error) {
  const int64_t queries = args.q.shape[0], heads = args.q.shape[1];
  const bl_tensor &output = args.output, &lse = args.lse, &probabilities = args.probabilities;
  if (lse.data != nullptr) {
    BL_RETURN_IF_ERROR(check_extra("lse", lse, 2, error));
    BL_RETURN_IF_ERROR(check_apart_from_inputs("lse", lse, args, error));
    BL_RETURN_IF_ERROR(check_apart({"attention", "lse"}, lse, "output", output.data, output.bytes, error));
    BL_RETURN_IF_ERROR(check_dim({"attention", "lse"}, lse, 0, queries, "q.shape[0]", error));
    BL_RETURN_IF_ERROR(check_dim({"attention", "lse"}, lse, 1, heads, "q.shape[1]", error));
  }
  if (probabilities.data != nullptr) {
    const Argument name{"attention", "probabilities"};
    BL_RETURN_IF_ERROR(check_extra("probabilities", probabilities, 3, error));
    BL_RETURN_IF_ERROR(check_apart_from_inputs("probabilities", probabilities, args, error));
    BL_RETURN_IF_ERROR(check_apart(name, probabilities, "output", output.data, output.bytes, error));
    BL_RETURN_IF_ERROR(check_dim(name, probabilities, 0, heads, "q.shape[1]", error));
    BL_RETURN_IF_ERROR(check_dim(name, probabilities, 1, queries, "q.shape[0]", error));
    BL_CHECK(probabilities.strides[2] == 1 || probabilities.shape[2] <= 1, invalid_shape,
             "attention: probabilities.strides[2] is %lld, expected 1", ll(probabilities.strides[2]));
    BL_RETURN_IF_ERROR(check_apart(name, probabilities, "lse", lse.data, lse.bytes, error));
  }
  BL_RETURN_IF_ERROR(check_scores(args, error));
  return check_apart_from_inputs("output", output, args, error);
}

bl_status check_scores(const bl_attention_args& args, bl_error* error) {
  BL_CHECK(args.score_queries >= 0, out_of_range, "attention: scores.queries is %d, expected at least 0",
           args.score_queries);
  const struct {
    const char* name;
    const bl_tensor& tensor;
  } written[] = {{"output", args.output},
                 {"lse", args.lse},
                 {"probabilities", args.probabilities},
                 {"scores.sums", args.score_sums},
                 {"scores.squares", args.score_squares},
                 {"scores.entropy", args.score_entropy},
                 {"scores.variance", args.score_variance}};
  constexpr int kFirst = 3, kRank2 = 5;
  for (int i = kFirst; i < 7; ++i) {
    const bl_tensor& tensor = written[i].tensor;
    if (tensor.data == nullptr) continue;
    const Argument name{"attention", written[i].name};
    BL_RETURN_IF_ERROR(check_extra(written[i].name, tensor, i < kRank2 ? 3 : 2, error));
    BL_RETURN_IF_ERROR(check_dim(name, tensor, 0, sequences_of(args), "sequences", error));
    BL_RETURN_IF_ERROR(check_dim(name, tensor, 1, args.q.shape[1], "q.shape[1]", error));
    BL_CHECK(i >= kRank2 || tensor.strides[2] == 1 || tensor.shape[2] <= 1, invalid_shape,
             "attention: %s.strides[2] is %lld, expected 1", written[i].name, ll(tensor.strides[2]));
    BL_RETURN_IF_ERROR(check_apart_from_inputs(written[i].name, tensor, args, error));
    for (int j = 0; j < i; ++j) {
      const bl_tensor& other = written[j].tensor;
      BL_RETURN_IF_ERROR(check_apart(name, tensor, written[j].name, other.data, other.bytes, error));
    }
  }
  return BL_STATUS_ok;
}

bl_status check_score_keys(const bl_attention_args& args, int64_t longest, bl_error* error) {
  if (args.score_sums.data != nullptr) {
    BL_RETURN_IF_ERROR(check_dim({"attention", "scores.sums"}, args.score_sums, 2, longest,
                                 "the keys of the longest sequence", error));
  }
  if (args.score_squares.data == nullptr) return BL_STATUS_ok;
  return check_dim({"attention", "scores.squares"}, args.score_squares, 2, longest,
                   "the keys of the longest sequence", error);
}

}  // namespace bitloom
