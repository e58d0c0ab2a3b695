#include "../../call.h"

namespace bitloom::node {

// softmax(x, output, scale, run)
bool read_softmax(Arguments& arguments, bl_softmax_args* args) {
  return arguments.tensor("x", &args->x) && arguments.tensor("output", &args->output) &&
         arguments.number("scale", &args->scale);
}

}  // namespace bitloom::node
