#include "../../call.h"

namespace bitloom::node {

// layerNorm(x, weight | undefined, bias | undefined, output, epsilon, run)
bool read_layer_norm(Arguments& arguments, bl_layer_norm_args* args) {
  return arguments.tensor("x", &args->x) && arguments.optional_tensor("weight", &args->weight) &&
         arguments.optional_tensor("bias", &args->bias) && arguments.tensor("output", &args->output) &&
         arguments.number("epsilon", &args->epsilon);
}

}  // namespace bitloom::node
