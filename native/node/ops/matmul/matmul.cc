#include "../../call.h"

namespace bitloom::node {

// matmul(a | undefined, b, bias | undefined, c, compute, algorithm, prepared | undefined, run)
bool read_matmul(Arguments& arguments, bl_matmul_args* args) {
  void* prepared = nullptr;
  if (!(arguments.optional_tensor("a", &args->a) && arguments.weights("b", &args->b) &&
        arguments.optional_tensor("bias", &args->bias) && arguments.tensor("c", &args->c) &&
        arguments.integer("compute", &args->compute) && arguments.integer("algorithm", &args->algorithm) &&
        arguments.optional_bytes("prepared", &prepared, &args->prepared_bytes))) {
    return false;
  }
  args->prepared = prepared;
  return true;
}

}  // namespace bitloom::node
