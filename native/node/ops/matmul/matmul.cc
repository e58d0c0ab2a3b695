#include "../../call.h"

namespace bitloom::node {

// matmul(a, b, bias | undefined, c, compute, algorithm, run)
bool read_matmul(Arguments& arguments, bl_matmul_args* args) {
  return arguments.tensor("a", &args->a) && arguments.weights("b", &args->b) &&
         arguments.optional_tensor("bias", &args->bias) && arguments.tensor("c", &args->c) &&
         arguments.integer("compute", &args->compute) &&
         arguments.integer("algorithm", &args->algorithm);
}

}  // namespace bitloom::node
