#include "../../call.h"

namespace bitloom::node {

// linearAttention(q, k, v, output, state, decay | undefined, beta | undefined, cuTokens | undefined, scale,
// rule, chunk,
//                 run)
bool read_linear_attention(Arguments& arguments, bl_linear_attention_args* args) {
  return arguments.tensor("q", &args->q) && arguments.tensor("k", &args->k) &&
         arguments.tensor("v", &args->v) && arguments.tensor("output", &args->output) &&
         arguments.tensor("state", &args->state) && arguments.optional_tensor("decay", &args->decay) &&
         arguments.optional_tensor("beta", &args->beta) &&
         arguments.optional_tensor("cuTokens", &args->cu_tokens) && arguments.number("scale", &args->scale) &&
         arguments.integer("rule", &args->rule) && arguments.integer("chunk", &args->chunk);
}

}  // namespace bitloom::node
