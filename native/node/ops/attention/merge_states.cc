#include "../../call.h"

namespace bitloom::node {

// mergeStates(outputs, lses, output, lse | undefined, run)
bool read_merge_states(Arguments& arguments, bl_merge_states_args* args) {
  return arguments.tensor("outputs", &args->outputs) && arguments.tensor("lses", &args->lses) &&
         arguments.tensor("output", &args->output) && arguments.optional_tensor("lse", &args->lse);
}

}  // namespace bitloom::node
