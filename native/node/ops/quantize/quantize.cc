#include "../../call.h"

namespace bitloom::node {

// quantize(input, output, method, importance or undefined, run)
bool read_quantize(Arguments& arguments, bl_quantize_args* args) {
  return arguments.tensor("input", &args->input) && arguments.weights("output", &args->output) &&
         arguments.integer("method", &args->method) &&
         arguments.optional_tensor("importance", &args->importance);
}

}  // namespace bitloom::node
