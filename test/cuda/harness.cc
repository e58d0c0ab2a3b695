#include "harness.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>

#include "coverage.h"

namespace bitloom::cuda::testing {
namespace {

int passed = 0, failed = 0;
std::map<std::string, void (*)()>& parts() {
  static std::map<std::string, void (*)()> all;
  return all;
}

}  // namespace

void check(bool condition, const std::string& what) {
  if (condition) {
    ++passed;
    return;
  }
  ++failed;
  if (failed < 60) std::fprintf(stderr, "FAILED: %s\n", what.c_str());
}

void check_ok(bl_status status, const bl_error& error, const std::string& what) {
  check(status == BL_STATUS_ok, what + ": " + (status == BL_STATUS_ok ? "" : error.message));
}

void run_part(const std::string& name) { parts().at(name)(); }

Part::Part(const char* name, void (*run)()) { parts()[name] = run; }

}  // namespace bitloom::cuda::testing

int main(int argc, char** argv) {
  using namespace bitloom::cuda::testing;
  for (int i = 1; i < argc; ++i) check(parts().count(argv[i]) == 1, std::string("no part named ") + argv[i]);
  for (const auto& [name, run] : parts()) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc; ++i) wanted = wanted || name == argv[i];
    if (!wanted) continue;
    try {
      run();
    } catch (const std::exception& error) {
      check(false, name + ": " + error.what());
    }
  }
  // Some parts alone leave much unexecuted: BITLOOM_CUDA_COVERAGE=1 lists it.
  if (argc < 2 || std::getenv("BITLOOM_CUDA_COVERAGE") != nullptr)
    check(print_unexecuted() == 0, "every instruction is executed, or in unreachable.inc");
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
