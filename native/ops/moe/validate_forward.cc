#include "validate_forward.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "../../base/tensor.h"

namespace bitloom {

namespace {

using ll = long long;
constexpr const char* kOp = "moe_forward";

// "experts[3].gate", as messages name a part of an expert.
struct PartName {
  char text[64];
  PartName(int64_t number, const char* part) {
    std::snprintf(text, sizeof(text), "experts[%lld].%s", static_cast<ll>(number), part);
  }
};

bl_status check_modes(const bl_moe_forward_args& args, bl_error* error) {
  BL_CHECK(args.activation >= BL_MOE_silu && args.activation <= BL_MOE_swiglu_oai, invalid_argument,
           "moe_forward: activation is %d, expected 0 to %d", args.activation, BL_MOE_swiglu_oai);
  BL_CHECK(std::isfinite(args.limit) && args.limit >= 0, invalid_argument,
           "moe_forward: limit is %g, expected a finite number of at least 0",
           static_cast<double>(args.limit));
  BL_CHECK(args.compute >= BL_COMPUTE_f32 && args.compute <= BL_COMPUTE_i1, invalid_argument,
           "moe_forward: compute is %d, expected 0 to %d", args.compute, BL_COMPUTE_i1);
  BL_CHECK(args.algorithm >= BL_ALGORITHM_auto && args.algorithm <= BL_ALGORITHM_tile, invalid_argument,
           "moe_forward: algorithm is %d, expected 0 to %d", args.algorithm, BL_ALGORITHM_tile);
  BL_CHECK(args.max_rows >= 0, out_of_range, "moe_forward: max_rows is %lld, expected at least 0",
           static_cast<ll>(args.max_rows));
  return BL_STATUS_ok;
}

bl_status check_counts(const bl_moe_forward_args& args, bl_error* error) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  BL_CHECK(args.num_experts >= 0 && args.num_experts <= kMost, out_of_range,
           "moe_forward: num_experts is %lld, expected 0 to 2147483647", static_cast<ll>(args.num_experts));
  BL_CHECK(args.num_shared >= 0 && args.num_shared <= kMost, out_of_range,
           "moe_forward: num_shared is %lld, expected 0 to 2147483647", static_cast<ll>(args.num_shared));
  BL_CHECK(args.experts != nullptr || args.num_experts + args.num_shared == 0, invalid_argument,
           "moe_forward: experts is null, expected %lld of them",
           static_cast<ll>(args.num_experts + args.num_shared));
  const int64_t tokens = args.x.shape[0], columns = args.indices.shape[1] + args.num_shared;
  BL_CHECK(tokens <= kMost && columns <= kMost && tokens * columns <= kMost, unsupported,
           "moe_forward: %lld tokens go to %lld experts each, expected at most 2147483647 routes",
           static_cast<ll>(tokens), static_cast<ll>(columns));
  return BL_STATUS_ok;
}

bl_status check_bias(const PartName& name, const bl_tensor& bias, int64_t size, const char* size_name,
                     bl_error* error) {
  return check_optional_vector({kOp, name.text}, bias, dtype_bit(BL_DTYPE_f32), size, size_name, error);
}

bl_status check_matrix(const PartName& name, const bl_weights& weights, int64_t rows, const char* rows_name,
                       int64_t cols, const char* cols_name, bl_error* error) {
  BL_RETURN_IF_ERROR(check_weights({kOp, name.text}, weights, error));
  BL_CHECK(weights.layout != BL_LAYOUT_fragments, invalid_layout,
           "moe_forward: %s.layout is fragments, which CUDA devices read, expected canonical or lanes16",
           name.text);
  BL_CHECK(weights.rows == rows, invalid_shape, "moe_forward: %s.rows is %lld, expected %lld (= %s)",
           name.text, static_cast<ll>(weights.rows), static_cast<ll>(rows), rows_name);
  BL_CHECK(weights.cols == cols, invalid_shape, "moe_forward: %s.cols is %lld, expected %lld (= %s)",
           name.text, static_cast<ll>(weights.cols), static_cast<ll>(cols), cols_name);
  return BL_STATUS_ok;
}

// What an expert of low rank has besides: a rank of 0 would be an expert of zeros.
bl_status check_factors(const bl_moe_expert& expert, int64_t number, int64_t hidden, bl_error* error) {
  const PartName reduce(number, "reduce"), expand(number, "expand");
  if (expert.reduce.data != nullptr) {
    BL_RETURN_IF_ERROR(
        check_matrix(reduce, expert.reduce, expert.reduce.rows, "its own", hidden, "hidden", error));
    BL_CHECK(expert.reduce.rows > 0, invalid_shape, "moe_forward: %s.rows is 0, expected at least 1",
             reduce.text);
  }
  if (expert.expand.data == nullptr) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(
      check_matrix(expand, expert.expand, hidden, "hidden", expert.expand.cols, "its own", error));
  BL_CHECK(expert.expand.cols > 0, invalid_shape, "moe_forward: %s.cols is 0, expected at least 1",
           expand.text);
  return BL_STATUS_ok;
}

// Calls visit(part, its name, its memory) for each part that an expert has, until one fails.
template <class Visit>
bl_status visit_parts(const bl_moe_expert& expert, const Visit& visit) {
  const bl_weights* weights[] = {&expert.gate, &expert.up, &expert.down, &expert.reduce, &expert.expand};
  const char* names[] = {"gate", "up", "down", "reduce", "expand"};
  for (int i = 0; i < 5; ++i) {
    if (weights[i]->data == nullptr) continue;
    BL_RETURN_IF_ERROR(
        visit(names[i], weights[i]->data,
              bl_layout_bytes(weights[i]->format, weights[i]->layout, weights[i]->rows, weights[i]->cols)));
  }
  const bl_tensor* biases[] = {&expert.gate_bias, &expert.up_bias, &expert.down_bias};
  const char* bias_names[] = {"gate_bias", "up_bias", "down_bias"};
  for (int i = 0; i < 3; ++i) {
    if (biases[i]->data != nullptr) {
      BL_RETURN_IF_ERROR(visit(bias_names[i], biases[i]->data, biases[i]->bytes));
    }
  }
  return BL_STATUS_ok;
}

bl_status check_workspace_of_expert(const bl_moe_forward_args& args, int64_t number, bl_error* error) {
  return visit_parts(args.experts[number], [&](const char* part, const void* data, uint64_t bytes) {
    BL_CHECK(!overlaps(args.workspace, args.workspace_bytes, data, bytes), invalid_argument,
             "moe_forward: workspace overlaps %s, expected memory apart from it",
             PartName(number, part).text);
    return BL_STATUS_ok;
  });
}

// What is written to the output or read of the tensors must not be the call's own memory.
bl_status check_workspace(const bl_moe_forward_args& args, bl_error* error) {
  if (args.workspace == nullptr) return BL_STATUS_ok;
  const bl_tensor* apart[] = {&args.output,  &args.x,        &args.indices,
                              &args.weights, &args.residual, &args.shared_weights};
  const char* names[] = {"output", "x", "indices", "weights", "residual", "shared_weights"};
  for (int i = 0; i < 6; ++i) {
    BL_CHECK(apart[i]->data == nullptr ||
                 !overlaps(args.workspace, args.workspace_bytes, apart[i]->data, apart[i]->bytes),
             invalid_argument, "moe_forward: workspace overlaps %s, expected memory apart from it", names[i]);
  }
  return BL_STATUS_ok;
}

}  // namespace

bl_status validate_forward(const bl_moe_forward_args& args, bl_error* error) {
  const Argument output{kOp, "output"};
  BL_RETURN_IF_ERROR(check_modes(args, error));
  BL_RETURN_IF_ERROR(check_tensor({kOp, "x"}, args.x, kFloatTypes, 2, 2, error));
  const int64_t tokens = args.x.shape[0];
  BL_RETURN_IF_ERROR(check_tensor({kOp, "indices"}, args.indices, dtype_bit(BL_DTYPE_i32), 2, 2, error));
  BL_RETURN_IF_ERROR(check_dim({kOp, "indices"}, args.indices, 0, tokens, "x.shape[0]", error));
  BL_RETURN_IF_ERROR(check_tensor({kOp, "weights"}, args.weights, dtype_bit(BL_DTYPE_f32), 2, 2, error));
  BL_RETURN_IF_ERROR(check_same_shape({kOp, "weights"}, args.weights, "indices", args.indices, error));
  BL_RETURN_IF_ERROR(check_counts(args, error));
  if (args.shared_weights.data != nullptr) {
    const Argument shared{kOp, "shared_weights"};
    BL_RETURN_IF_ERROR(check_tensor(shared, args.shared_weights, dtype_bit(BL_DTYPE_f32), 2, 2, error));
    BL_RETURN_IF_ERROR(check_dim(shared, args.shared_weights, 0, tokens, "x.shape[0]", error));
    BL_RETURN_IF_ERROR(check_dim(shared, args.shared_weights, 1, args.num_shared, "num_shared", error));
  }
  BL_RETURN_IF_ERROR(check_output(output, args.output, kFloatTypes, 2, 2, error));
  BL_RETURN_IF_ERROR(check_same_shape(output, args.output, "x", args.x, error));
  const bl_tensor* apart[] = {&args.x, &args.indices, &args.weights, &args.shared_weights};
  const char* names[] = {"x", "indices", "weights", "shared_weights"};
  for (int i = 0; i < 4; ++i) {
    if (apart[i]->data == nullptr) continue;
    BL_RETURN_IF_ERROR(check_apart(output, args.output, names[i], apart[i]->data, apart[i]->bytes, error));
  }
  BL_RETURN_IF_ERROR(check_workspace(args, error));
  if (args.residual.data == nullptr) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_tensor({kOp, "residual"}, args.residual, kFloatTypes, 2, 2, error));
  BL_RETURN_IF_ERROR(check_same_shape({kOp, "residual"}, args.residual, "output", args.output, error));
  return check_alias(output, args.output, "residual", args.residual, error);
}

bl_status validate_expert(const bl_moe_expert& expert, int64_t number, int64_t hidden, bl_error* error) {
  const PartName gate(number, "gate"), up(number, "up"), down(number, "down");
  const int64_t width = expert.up.rows;
  const bool reduces = expert.reduce.data != nullptr, expands = expert.expand.data != nullptr;
  const int64_t inner = reduces ? expert.reduce.rows : hidden;
  const int64_t outer = expands ? expert.expand.cols : hidden;
  BL_RETURN_IF_ERROR(check_factors(expert, number, hidden, error));
  BL_RETURN_IF_ERROR(
      check_matrix(up, expert.up, width, "its own", inner, reduces ? "reduce.rows" : "hidden", error));
  BL_RETURN_IF_ERROR(
      check_matrix(down, expert.down, outer, expands ? "expand.cols" : "hidden", width, "up.rows", error));
  const PartName gate_bias(number, "gate_bias"), up_bias(number, "up_bias"), down_bias(number, "down_bias");
  BL_RETURN_IF_ERROR(check_bias(up_bias, expert.up_bias, width, "up.rows", error));
  BL_RETURN_IF_ERROR(check_bias(down_bias, expert.down_bias, hidden, "hidden", error));
  if (expert.gate.data == nullptr) {
    BL_CHECK(expert.gate_bias.data == nullptr, invalid_argument,
             "moe_forward: experts[%lld].gate_bias is given, expected a gate with it",
             static_cast<ll>(number));
    return BL_STATUS_ok;
  }
  BL_RETURN_IF_ERROR(check_matrix(gate, expert.gate, width, "up.rows", inner, "up.cols", error));
  BL_RETURN_IF_ERROR(check_bias(gate_bias, expert.gate_bias, width, "up.rows", error));
  BL_CHECK(expert.gate.format == expert.up.format, invalid_format,
           "moe_forward: %s.format is %s, expected %s (= up.format)", gate.text,
           bl_get_format_info(expert.gate.format)->name, bl_get_format_info(expert.up.format)->name);
  BL_CHECK(expert.gate.layout == expert.up.layout, invalid_layout,
           "moe_forward: %s.layout is %d, expected %d (= up.layout)", gate.text, expert.gate.layout,
           expert.up.layout);
  return BL_STATUS_ok;
}

bl_status check_workspace_apart(const bl_moe_forward_args& args, bl_error* error) {
  if (args.workspace == nullptr) return BL_STATUS_ok;
  const int64_t top_k = args.indices.shape[1], routes = args.indices.shape[0] * top_k;
  for (int64_t i = 0; i < std::min(routes, args.num_experts); ++i) {
    int32_t number = static_cast<int32_t>(i);
    if (routes < args.num_experts) {
      const int64_t place = i / top_k * args.indices.strides[0] + i % top_k * args.indices.strides[1];
      std::memcpy(&number, static_cast<const uint8_t*>(args.indices.data) + 4 * place, sizeof(number));
    }
    if (number < 0 || number >= args.num_experts) continue;  // -1, or refused with its place later
    BL_RETURN_IF_ERROR(check_workspace_of_expert(args, number, error));
  }
  for (int64_t i = 0; i < args.num_shared; ++i) {
    BL_RETURN_IF_ERROR(check_workspace_of_expert(args, args.num_experts + i, error));
  }
  return BL_STATUS_ok;
}

bl_status check_expert_apart(const bl_moe_expert& expert, int64_t number, const bl_tensor& output,
                             bl_error* error) {
  return visit_parts(expert, [&](const char* part, const void* data, uint64_t bytes) {
    return check_apart({kOp, "output"}, output, PartName(number, part).text, data, bytes, error);
  });
}

}  // namespace bitloom

extern "C" bl_status bl_moe_check_expert(const bl_moe_expert* expert, int64_t number, int64_t hidden,
                                         bl_error* error) {
  using namespace bitloom;
  BL_CHECK(expert != nullptr, invalid_argument, "moe_forward: experts[%lld] is null, expected an expert",
           static_cast<long long>(number));
  return validate_expert(*expert, number, hidden, error);
}
