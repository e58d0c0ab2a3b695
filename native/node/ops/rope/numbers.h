// The numbers of a rotation, which stand among the values of rope and of attention.
#pragma once

#include "../../arguments.h"

namespace bitloom::node {

// mode, rotaryDim, theta, scaling, factor, lowFreqFactor, highFreqFactor, originalContext, attentionFactor,
// betaFast, betaSlow: as ropeNumbers() of lib/ops/rope/values.ts makes them
bool read_rope_numbers(Arguments& arguments, bl_rope_args* args);

}  // namespace bitloom::node
