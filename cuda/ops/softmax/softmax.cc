// Host side of softmax.
#include <algorithm>

#include "../../backend.h"
#include "../rows.h"
#include "config.h"

namespace bitloom::cuda {

extern const ModuleImages softmax_module;

bl_status softmax(Queue& queue, const bl_softmax_args& args, bl_error* error) {
  if (element_count(args.x) == 0) return BL_STATUS_ok;
  const NamedView views[] = {{"x", args.x}, {"output", args.output}};
  Operand operands[2];
  SoftmaxParams params{};
  BL_RETURN_IF_ERROR(plan_rows("softmax", views, 2, false, &params.rows, operands, error));
  params.x = operands[0];
  params.output = operands[1];
  params.scale = args.scale;
  const bool wide = params.rows.wide != 0;
  const int64_t pieces = wide ? params.rows.length / 8 : params.rows.length;
  LaunchShape shape;
  shape.block.x = static_cast<uint32_t>(std::min<int64_t>(kSoftmaxMaxThreads, ceil_div(pieces, 32) * 32));
  shape.grid.x = static_cast<uint32_t>(std::min<int64_t>(params.rows.count, int64_t{1} << 20));
  return queue.launch(softmax_module, wide ? "softmax_wide" : "softmax_plain", shape, params, error);
}

}  // namespace bitloom::cuda
