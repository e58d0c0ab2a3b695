// Tests of the emulated driver. `cuda_driver_test` runs all; `cuda_driver_test name...` the named parts.
#include <cstring>

#include "harness.h"

int main(int argc, char** argv) {
  using namespace bitloom::cuda_emulation::testing;
  struct Part {
    const char* name;
    void (*run)();
  };
  static constexpr Part parts[] = {{"api", test_api},
                                   {"devices", test_devices},
                                   {"memory", test_memory},
                                   {"modules", test_modules},
                                   {"launches", test_launches},
                                   {"streams", test_streams},
                                   {"graphs", test_graphs},
                                   {"faults", test_faults},
                                   {"failures", test_failures},
                                   {"compiled", test_compiled_kernels},
                                   {"environment", test_environment}};
  for (const Part& part : parts) {
    bool wanted = argc < 2 && part.run != test_environment;
    for (int i = 1; i < argc; ++i) wanted = wanted || std::strcmp(argv[i], part.name) == 0;
    if (wanted) part.run();
  }
  return finish();
}
