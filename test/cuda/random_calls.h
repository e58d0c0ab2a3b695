// Random calls: of many, those with the seeds of random_seeds.inc are kept, which between them execute what
// no other test does. BITLOOM_CUDA_EXPLORE=<n> tries n seeds of each kind of call and prints those that
// execute something new, to be added.
#pragma once

#include <functional>

#include "test_queue.h"

namespace bitloom::cuda::testing {

// Calls call(settings, seed) for each kept seed of `kind` and each architecture.
void run_random(const char* kind, const std::function<void(const Settings& settings, uint64_t seed)>& call);

}  // namespace bitloom::cuda::testing
