#include "../../call.h"

namespace bitloom::node {

// rmsNorm(x, weight | undefined, output, epsilon, run)
bool read_rms_norm(Arguments& arguments, bl_rms_norm_args* args) {
  return arguments.tensor("x", &args->x) && arguments.optional_tensor("weight", &args->weight) &&
         arguments.tensor("output", &args->output) && arguments.number("epsilon", &args->epsilon);
}

}  // namespace bitloom::node
