#include "../../call.h"

namespace bitloom::node {

// dequantize(input, output, run)
bool read_dequantize(Arguments& arguments, bl_dequantize_args* args) {
  return arguments.weights("input", &args->input) && arguments.tensor("output", &args->output);
}

}  // namespace bitloom::node
