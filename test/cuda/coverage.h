// Which instructions of the kernels the tests have executed. What they have not must stand in unreachable.inc.
#pragma once

#include <cstddef>
#include <string>

#include "test/ptx/interpreter/counters.h"

namespace bitloom::cuda::testing {

// `image`: "<module>.compute_<arch>".
void remember_executed(const std::string& image, const std::string& kernel, const ptx::Counters& counters);

// Prints the kernels of the used modules that were never launched, the instructions that were never executed and can be as
// far as unreachable.inc knows, and the rows of that list that excuse nothing. Gives the number of all these.
size_t print_unexecuted();

}  // namespace bitloom::cuda::testing
