// The stack of contexts of the calling thread, the current one last.
#pragma once

#include <vector>

#include "api.h"

namespace bitloom::cuda_emulation {

inline std::vector<CUcontext>& thread_contexts() {
  thread_local std::vector<CUcontext> contexts;
  return contexts;
}

}  // namespace bitloom::cuda_emulation
