// Which instructions of the kernels the tests have executed. What they have not must stand in
// unreachable.inc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "test/ptx/interpreter/counters.h"

namespace bitloom::cuda::testing {

// `image`: "<module>.compute_<arch>".
void remember_executed(const std::string& image, const std::string& kernel, const ptx::Counters& counters);

// How many instructions, of all kernels together, have been executed.
size_t instructions_executed();

// Prints the kernels of the used modules that were never launched, the instructions that were never executed
// and can be as far as unreachable.inc knows, and the rows of that list that excuse nothing. Gives the number
// of all these.
size_t print_unexecuted();

// Line `number`, from 1, of a file of the module's family or of those that all share; of others nothing.
const std::string& source_line(const std::string& module, const std::string& file, int32_t number);
// names: kernels, separated by spaces; `*` at the beginning or end of one stands for anything.
bool is_one_of(const std::string& kernel, const std::string& names);

}  // namespace bitloom::cuda::testing
