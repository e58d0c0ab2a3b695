#include "../../call.h"
#include "numbers.h"

namespace bitloom::node {

bool read_rope_numbers(Arguments& arguments, bl_rope_args* args) {
  return arguments.integer("mode", &args->mode) && arguments.integer("rotaryDim", &args->rotary_dim) &&
         arguments.number("theta", &args->theta) && arguments.integer("scaling", &args->scaling) &&
         arguments.number("factor", &args->factor) &&
         arguments.number("lowFreqFactor", &args->low_freq_factor) &&
         arguments.number("highFreqFactor", &args->high_freq_factor) &&
         arguments.number("originalContext", &args->original_context) &&
         arguments.number("attentionFactor", &args->attention_factor) &&
         arguments.number("betaFast", &args->beta_fast) && arguments.number("betaSlow", &args->beta_slow);
}

// rope(x, positions, freqFactors | undefined, output, ...numbers, run)
bool read_rope(Arguments& arguments, bl_rope_args* args) {
  return arguments.tensor("x", &args->x) && arguments.tensor("positions", &args->positions) &&
         arguments.optional_tensor("freqFactors", &args->freq_factors) &&
         arguments.tensor("output", &args->output) && read_rope_numbers(arguments, args);
}

}  // namespace bitloom::node
