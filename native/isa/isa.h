// The level a call may use.
#pragma once

#include <initializer_list>

#include "../include/bitloom.h"

namespace bitloom {

int32_t isa_of(const bl_run& run);

// BITLOOM_VERBOSE=dispatch: choose() prints a line for each kernel it rejects and the one it takes.
bool verbose_dispatch();

}  // namespace bitloom
