// Host side of the elementwise operators: joins axes, chooses the wide or the plain kernel, launches.
#include "elementwise.h"

#include <algorithm>

#include "../../backend.h"
#include "../rows.h"
#include "config.h"

namespace bitloom::cuda {

extern const ModuleImages elementwise_module;

namespace {

struct Names {
  const char *wide, *plain;
};
constexpr Names kNames[] = {
#define BL_CUDA_ELEMENTWISE(name, is_binary, value) \
  {"elementwise_" #name "_wide", "elementwise_" #name "_plain"},
#include "kernels.inc"
#undef BL_CUDA_ELEMENTWISE
};

// `right` with left's axes: those that it lacks repeat it.
bl_tensor repeated(const bl_tensor& right, const bl_tensor& left) {
  bl_tensor view = right;
  view.rank = left.rank;
  const int32_t lacking = left.rank - right.rank;
  for (int32_t axis = left.rank - 1; axis >= 0; --axis) {
    view.shape[axis] = left.shape[axis];
    view.strides[axis] = axis < lacking ? 0 : right.strides[axis - lacking];
  }
  return view;
}

}  // namespace

bl_status run_elementwise(Queue& queue, Elementwise op, const char* name, const bl_tensor& left,
                          const bl_tensor& right, const bl_tensor& output, bl_error* error) {
  if (element_count(output) == 0) return BL_STATUS_ok;
  const bool is_binary = right.data != nullptr;
  const NamedView views[] = {{"output", output},
                             {is_binary ? "left" : "x", left},
                             {"right", is_binary ? repeated(right, left) : right}};
  Operand operands[3];
  ElementwiseParams params{};
  BL_RETURN_IF_ERROR(plan_rows(name, views, 3, true, &params.rows, operands, error));
  params.output = operands[0];
  params.left = operands[1];
  params.right = operands[2];
  const bool wide = params.rows.wide != 0;
  const int64_t pieces = wide ? params.rows.length / 8 : params.rows.length;
  LaunchShape shape;
  shape.block.x = static_cast<uint32_t>(std::min<int64_t>(kElementwiseThreads, ceil_div(pieces, 32) * 32));
  // More blocks than run at once gain nothing: the kernel strides over the rest.
  const int64_t most = int64_t{queue.limits().multiprocessors} * 16;
  shape.grid.x = static_cast<uint32_t>(std::min(ceil_div(pieces, shape.block.x), most));
  shape.grid.y = static_cast<uint32_t>(std::min(params.rows.count, kMaxGridY));
  const Names& names = kNames[static_cast<int>(op)];
  return queue.launch(elementwise_module, wide ? names.wide : names.plain, shape, params, error);
}

bl_status silu(Queue& queue, const bl_silu_args& args, bl_error* error) {
  return run_elementwise(queue, Elementwise::silu, "silu", args.x, bl_tensor{}, args.output, error);
}

bl_status gelu(Queue& queue, const bl_gelu_args& args, bl_error* error) {
  const Elementwise op = args.approximation == BL_GELU_tanh ? Elementwise::gelu_tanh : Elementwise::gelu_erf;
  return run_elementwise(queue, op, "gelu", args.x, bl_tensor{}, args.output, error);
}

bl_status swiglu(Queue& queue, const bl_swiglu_args& args, bl_error* error) {
  return run_elementwise(queue, Elementwise::swiglu, "swiglu", args.left, args.right, args.output, error);
}

bl_status add(Queue& queue, const bl_add_args& args, bl_error* error) {
  return run_elementwise(queue, Elementwise::add, "add", args.left, args.right, args.output, error);
}

bl_status mul(Queue& queue, const bl_mul_args& args, bl_error* error) {
  return run_elementwise(queue, Elementwise::mul, "mul", args.left, args.right, args.output, error);
}

}  // namespace bitloom::cuda
