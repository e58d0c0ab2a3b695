// Kernels that are mutated, and calls that run all of each.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "harness.h"
#include "test_queue.h"

namespace bitloom::cuda::testing {

// Runs an operator on a queue.
using Run = std::function<void(TestQueue& queue)>;

struct MutatedKernel {
  std::string module, kernel;
  std::vector<Run> runs = {};
  std::vector<std::string> parts = {};  // of the suite: all their launches of the kernel
  bool all_kinds = true;                // of mutants; else those of synchronization
};

// One of each class of codes and of everything else that is not a variant of another. thorough: also those
// that are mutated in a full run alone.
std::vector<MutatedKernel> mutated_kernels(bool thorough);
std::vector<MutatedKernel> mutated_products();
std::vector<MutatedKernel> mutated_attention();

// Calls that launch every kernel of products and attention.
std::vector<Run> common_runs();

}  // namespace bitloom::cuda::testing
