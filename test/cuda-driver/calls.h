// The entry points before they are guarded and exported.
#pragma once

#include "api.h"

namespace bitloom::cuda_emulation {

#define BITLOOM_CUDA_ENTRY(name, base, version, parameters, arguments) CUresult name parameters;
#include "entry_points.inc"
#undef BITLOOM_CUDA_ENTRY

}  // namespace bitloom::cuda_emulation
