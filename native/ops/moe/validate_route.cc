#include "validate_route.h"

#include <cmath>
#include <limits>

#include "../../base/tensor.h"

namespace bitloom {

namespace {

bl_status validate_outputs(const bl_moe_route_args& args, bl_error* error) {
  const char* op = "moe_route";
  const int64_t tokens = args.logits.shape[0], experts = args.logits.shape[1];
  BL_RETURN_IF_ERROR(check_output({op, "indices"}, args.indices, dtype_bit(BL_DTYPE_i32), 2, 2, error));
  BL_RETURN_IF_ERROR(check_output({op, "weights"}, args.weights, dtype_bit(BL_DTYPE_f32), 2, 2, error));
  BL_RETURN_IF_ERROR(check_dim({op, "indices"}, args.indices, 0, tokens, "logits.shape[0]", error));
  BL_RETURN_IF_ERROR(check_same_shape({op, "weights"}, args.weights, "indices", args.indices, error));
  const int64_t top_k = args.indices.shape[1];
  BL_CHECK(top_k >= 1 && top_k <= experts, out_of_range,
           "moe_route: top_k is %lld, expected 1 to %lld (logits.shape[1])", static_cast<long long>(top_k),
           static_cast<long long>(experts));
  if (args.scores.data != nullptr) {
    BL_RETURN_IF_ERROR(check_output({op, "scores"}, args.scores, dtype_bit(BL_DTYPE_f32), 2, 2, error));
    BL_RETURN_IF_ERROR(check_same_shape({op, "scores"}, args.scores, "logits", args.logits, error));
  }
  const bl_tensor* outputs[] = {&args.indices, &args.weights, &args.scores};
  const char* names[] = {"indices", "weights", "scores"};
  for (int i = 0; i < 3; ++i) {
    if (outputs[i]->data == nullptr) continue;
    const Argument output{op, names[i]};
    BL_RETURN_IF_ERROR(
        check_apart(output, *outputs[i], "logits", args.logits.data, args.logits.bytes, error));
    if (args.bias.data != nullptr) {
      BL_RETURN_IF_ERROR(check_apart(output, *outputs[i], "bias", args.bias.data, args.bias.bytes, error));
    }
    for (int j = 0; j < i; ++j) {
      BL_RETURN_IF_ERROR(
          check_apart(output, *outputs[i], names[j], outputs[j]->data, outputs[j]->bytes, error));
    }
  }
  return BL_STATUS_ok;
}

}  // namespace

bl_status validate_route(const bl_moe_route_args& args, bl_error* error) {
  const char* op = "moe_route";
  BL_RETURN_IF_ERROR(check_tensor({op, "logits"}, args.logits, kFloatTypes, 2, 2, error));
  const int64_t experts = args.logits.shape[1];
  BL_CHECK(experts >= 1, invalid_shape, "moe_route: logits.shape[1] is 0, expected at least 1 expert");
  BL_CHECK(experts <= std::numeric_limits<int32_t>::max(), out_of_range,
           "moe_route: logits.shape[1] is %lld, expected at most 2147483647",
           static_cast<long long>(experts));
  BL_RETURN_IF_ERROR(check_optional_vector({op, "bias"}, args.bias, dtype_bit(BL_DTYPE_f32), experts,
                                           "logits.shape[1]", error));
  BL_CHECK(args.scoring >= BL_MOE_softmax && args.scoring <= BL_MOE_sigmoid, invalid_argument,
           "moe_route: scoring is %d, expected 0 to 2", args.scoring);
  BL_CHECK(args.scoring != BL_MOE_softmax_chosen || args.bias.data == nullptr, invalid_argument,
           "moe_route: bias is given, expected none with softmax over the chosen experts");
  BL_CHECK(args.group_score >= BL_MOE_max && args.group_score <= BL_MOE_top2, invalid_argument,
           "moe_route: group_score is %d, expected 0 or 1", args.group_score);
  BL_CHECK(args.normalize == 0 || args.normalize == 1, invalid_argument,
           "moe_route: normalize is %d, expected 0 or 1", args.normalize);
  BL_CHECK(std::isfinite(args.scale), invalid_argument, "moe_route: scale is %g, expected a finite number",
           static_cast<double>(args.scale));
  BL_RETURN_IF_ERROR(validate_outputs(args, error));
  if (args.num_groups == 0 || args.num_groups == 1) return BL_STATUS_ok;
  BL_CHECK(args.num_groups > 0 && experts % args.num_groups == 0, out_of_range,
           "moe_route: num_groups is %d, expected a divisor of %lld (logits.shape[1])", args.num_groups,
           static_cast<long long>(experts));
  const int64_t size = experts / args.num_groups, top_k = args.indices.shape[1];
  BL_CHECK(args.top_groups >= 1 && args.top_groups <= args.num_groups, out_of_range,
           "moe_route: top_groups is %d, expected 1 to %d (num_groups)", args.top_groups, args.num_groups);
  BL_CHECK(args.top_groups * size >= top_k, out_of_range,
           "moe_route: top_groups is %d, expected at least %lld (%lld experts in groups of %lld)",
           args.top_groups, static_cast<long long>((top_k + size - 1) / size), static_cast<long long>(top_k),
           static_cast<long long>(size));
  return BL_STATUS_ok;
}

}  // namespace bitloom
