// Rotation per position of each channel pair, with the scalings of the field.
#pragma once

#include "../../include/bitloom.h"

namespace bitloom {

// frequencies[j], j in [0, rotary_dim / 2): radians per position, in double. Returns the magnitude that
// multiplies cos and sin (1 but for yarn). `args` is checked, its rotary_dim and zero defaults are filled in.
double rope_frequencies(const bl_rope_args& args, double* frequencies);

}  // namespace bitloom
