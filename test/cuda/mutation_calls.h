// Kernels that are mutated, and calls that run all of each.
#pragma once

#include <functional>
#include <vector>

#include "harness.h"
#include "test_queue.h"

namespace bitloom::cuda::testing {

// Runs an operator on a queue and gives the bytes of its results.
using Run = std::function<std::vector<uint8_t>(TestQueue& queue)>;

struct MutatedKernel {
  const char *module, *kernel;
  std::vector<Run> runs;
};

// One of each class of codes and of everything else that is not a variant of another.
std::vector<MutatedKernel> mutated_kernels();

}  // namespace bitloom::cuda::testing
