// Host side of rms_norm and layer_norm.
#include <algorithm>

#include "../../backend.h"
#include "../rows.h"
#include "config.h"

namespace bitloom::cuda {

extern const ModuleImages norm_module;

namespace {

struct Call {
  const char *name, *wide, *plain;
  const bl_tensor &x, &weight, &bias, &output;
  float epsilon;
};

bl_status run_norm(Queue& queue, const Call& call, bl_error* error) {
  if (element_count(call.x) == 0) return BL_STATUS_ok;
  const NamedView views[] = {{"x", call.x}, {"output", call.output}};
  BL_RETURN_IF_ERROR(check_element_alignment(call.name, "weight", call.weight, error));
  BL_RETURN_IF_ERROR(check_element_alignment(call.name, "bias", call.bias, error));
  Operand operands[2];
  NormParams params{};
  BL_RETURN_IF_ERROR(plan_rows(call.name, views, 2, false, &params.rows, operands, error));
  params.x = operands[0];
  params.output = operands[1];
  params.weight = vector_operand(call.weight);
  params.bias = vector_operand(call.bias);
  params.epsilon = call.epsilon;
  const bool wide = params.rows.wide != 0 && is_wide(params.weight, 0) && is_wide(params.bias, 0);
  LaunchShape shape;
  // The number of threads depends on the row alone, so that a row's bits do not depend on the others.
  const int64_t pieces = wide ? params.rows.length / 8 : params.rows.length;
  shape.block.x = static_cast<uint32_t>(std::min<int64_t>(kNormMaxThreads, ceil_div(pieces, 32) * 32));
  shape.grid.x = static_cast<uint32_t>(std::min<int64_t>(params.rows.count, int64_t{1} << 20));
  return queue.launch(norm_module, wide ? call.wide : call.plain, shape, params, error);
}

}  // namespace

bl_status rms_norm(Queue& queue, const bl_rms_norm_args& args, bl_error* error) {
  return run_norm(queue,
                  {"rms_norm", "rms_norm_wide", "rms_norm_plain", args.x, args.weight, bl_tensor{},
                   args.output, args.epsilon},
                  error);
}

bl_status layer_norm(Queue& queue, const bl_layer_norm_args& args, bl_error* error) {
  return run_norm(queue,
                  {"layer_norm", "layer_norm_wide", "layer_norm_plain", args.x, args.weight, args.bias,
                   args.output, args.epsilon},
                  error);
}

}  // namespace bitloom::cuda
