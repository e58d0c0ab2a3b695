// Mutants of a kernel: its PTX with one instruction taken away or altered.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "test/ptx/interpreter/machine.h"

namespace bitloom::cuda::testing {

enum class MutantKind {
  synchronization,  // a barrier, fence, commit or wait is taken away
  bound,  // a comparison of integers takes its edge in or leaves it out; a least or largest is ignored
  shared_address,  // a mask, shift or exclusive or on the way to an address of shared memory (swizzles) is
                   // off
  global_address,  // a factor, shift, mask or summand on the way to an address of global memory (scale
                   // indices) is off
};
constexpr const char* kMutantKinds[] = {"synchronization", "bounds", "shared addresses", "global addresses"};

struct Mutant {
  MutantKind kind;
  int32_t line;         // of the text, from 1
  std::string now;      // what stands there instead
  std::string was;      // the instruction
  std::string file;     // of the source, without folders
  int32_t source_line;  // in it
};

// By kernel: the text of a module with it alone.
std::map<std::string, std::string> texts_of_kernels(const std::string& module_text);
std::vector<Mutant> mutants_of(const std::string& text, const std::string& kernel);
std::string mutated(const std::string& text, const Mutant& mutant);

}  // namespace bitloom::cuda::testing
