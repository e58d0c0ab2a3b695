#include "../../call.h"

namespace bitloom::node {

// moeForward(x, indices, weights, experts, numShared, sharedWeights | undefined, residual | undefined,
// output,
//            activation, limit, compute, algorithm, maxRows, workspace | undefined, run)
bool read_moe_forward(Arguments& arguments, bl_moe_forward_args* args) {
  int32_t num_shared = 0, max_rows = 0;
  if (!arguments.tensor("x", &args->x) || !arguments.tensor("indices", &args->indices) ||
      !arguments.tensor("weights", &args->weights) ||
      !arguments.experts("experts", &args->experts, &args->num_experts) ||
      !arguments.integer("numShared", &num_shared) ||
      !arguments.optional_tensor("sharedWeights", &args->shared_weights) ||
      !arguments.optional_tensor("residual", &args->residual) || !arguments.tensor("out", &args->output) ||
      !arguments.integer("activation", &args->activation) || !arguments.number("limit", &args->limit) ||
      !arguments.integer("compute", &args->compute) || !arguments.integer("algorithm", &args->algorithm) ||
      !arguments.integer("maxRows", &max_rows) ||
      !arguments.optional_bytes("workspace", &args->workspace, &args->workspace_bytes)) {
    return false;
  }
  args->num_shared = num_shared;
  args->num_experts -= num_shared;
  args->max_rows = max_rows;
  return true;
}

}  // namespace bitloom::node
