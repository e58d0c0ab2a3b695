#include "../../call.h"

namespace bitloom::node {

// pack(input, output, run)
bool read_pack(Arguments& arguments, bl_pack_args* args) {
  return arguments.weights("input", &args->input) && arguments.weights("output", &args->output);
}

}  // namespace bitloom::node
