#include "../../call.h"

namespace bitloom::node {

// prepareActivations(x, gate | undefined, normWeight | undefined, norm, epsilon, tables, output, run)
bool read_prepare_activations(Arguments& arguments, bl_prepare_activations_args* args) {
  return arguments.tensor("x", &args->x) && arguments.optional_tensor("gate", &args->gate) &&
         arguments.optional_tensor("norm_weight", &args->norm_weight) &&
         arguments.integer("norm", &args->norm) && arguments.number("epsilon", &args->epsilon) &&
         arguments.integer("tables", &args->tables) &&
         arguments.optional_bytes("output", &args->output, &args->output_bytes);
}

}  // namespace bitloom::node
