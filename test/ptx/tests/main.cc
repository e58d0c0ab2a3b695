// Tests of the PTX interpreter. `ptx_test` runs all; `ptx_test name...` the named parts; `ptx_test speed`
// measures.
#include <cstdio>
#include <cstring>

#include "harness.h"

int main(int argc, char** argv) {
  using namespace bitloom::ptx::testing;
  struct Part {
    const char* name;
    void (*run)();
    bool by_default;
  };
  static constexpr Part parts[] = {{"formats", test_formats, true},
                                   {"parser", test_parser, true},
                                   {"integers", test_integers, true},
                                   {"bits", test_bits, true},
                                   {"floats", test_floats, true},
                                   {"halves", test_halves, true},
                                   {"conversions", test_conversions, true},
                                   {"comparisons", test_comparisons, true},
                                   {"memory", test_memory, true},
                                   {"warp", test_warp_operations, true},
                                   {"matrices", test_matrices, true},
                                   {"control_flow", test_control_flow, true},
                                   {"synchronization", test_synchronization, true},
                                   {"faults", test_faults, true},
                                   {"counters", test_counters, true},
                                   {"kernels", test_kernels, true},
                                   {"mutations", test_mutations, true},
                                   {"speed", measure_speed, false}};
  for (const Part& part : parts) {
    bool wanted = argc < 2 && part.by_default;
    for (int i = 1; i < argc; ++i) wanted = wanted || std::strcmp(argv[i], part.name) == 0;
    if (!wanted) continue;
    try {
      part.run();
    } catch (const std::exception& error) {
      check(false, std::string(part.name) + ": " + error.what());
    }
  }
  if (argc < 2) {
    std::string untested;
    for (const std::string& opcode : untested_opcodes()) untested += " " + opcode;
    check(untested.empty(), "opcodes without a test:" + untested);
  }
  return finish();
}
