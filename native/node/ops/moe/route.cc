#include "../../call.h"

namespace bitloom::node {

// moeRoute(logits, bias | undefined, indices, weights, scores | undefined, scoring, numGroups, topGroups,
// groupScore,
//          normalize, scale, run)
bool read_moe_route(Arguments& arguments, bl_moe_route_args* args) {
  return arguments.tensor("logits", &args->logits) && arguments.optional_tensor("bias", &args->bias) &&
         arguments.tensor("indices", &args->indices) && arguments.tensor("weights", &args->weights) &&
         arguments.optional_tensor("scores", &args->scores) && arguments.integer("scoring", &args->scoring) &&
         arguments.integer("numGroups", &args->num_groups) &&
         arguments.integer("topGroups", &args->top_groups) &&
         arguments.integer("groupScore", &args->group_score) &&
         arguments.integer("normalize", &args->normalize) && arguments.number("scale", &args->scale);
}

}  // namespace bitloom::node
