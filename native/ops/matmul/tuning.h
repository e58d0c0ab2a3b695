// When algorithm auto takes which algorithm: tuning.inc, or what bl_set_matmul_tuning put in its place.
#pragma once

#include <cstdint>

namespace bitloom {

// The algorithm for m rows of a; bits 0: computed in floats.
int32_t tuned_algorithm(int32_t isa, int32_t bits, int64_t m, bool fast);

}  // namespace bitloom
