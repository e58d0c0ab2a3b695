#include "../../call.h"

namespace bitloom::node {

// attention(q, k, v, output, scale, causal, window, run)
bool read_attention(Arguments& arguments, bl_attention_args* args) {
  return arguments.tensor("q", &args->q) && arguments.tensor("k", &args->k) &&
         arguments.tensor("v", &args->v) && arguments.tensor("output", &args->output) &&
         arguments.number("scale", &args->scale) && arguments.integer("causal", &args->causal) &&
         arguments.integer("window", &args->window);
}

}  // namespace bitloom::node
