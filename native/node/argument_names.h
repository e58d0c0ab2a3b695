// Messages of the C ABI in the words of JavaScript callers.
#pragma once

#include "call.h"

namespace bitloom::node {

// Puts JavaScript's names in the place of C's in the message of a call that failed: of the operator, and of
// arguments that have another name there (`c_scales` of bl_matmul_args is the option `cScales`).
void name_arguments(const Call& call, bl_error* error);

}  // namespace bitloom::node
