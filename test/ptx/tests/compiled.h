// Running the compiled test kernels: arrays in device memory, and the schedules and modes that every kernel
// must pass.
#pragma once

#include <string>
#include <vector>

#include "formats.h"
#include "harness.h"

namespace bitloom::ptx::testing {

template <typename T>
uint64_t upload(Machine& machine, const std::vector<T>& values) {
  const uint64_t at = machine.memory.allocate(values.size() * sizeof(T));
  machine.memory.write(at, values.data(), values.size() * sizeof(T));
  return at;
}
template <typename T>
std::vector<T> download(Machine& machine, uint64_t at, size_t count) {
  std::vector<T> values(count);
  machine.memory.read(values.data(), at, count * sizeof(T));
  return values;
}

// Every delivery of copies with the fixed and with random schedules, one block at a time and interleaved.
inline std::vector<Options> all_options() {
  std::vector<Options> all;
  for (CopyDelivery delivery : {CopyDelivery::poisoned, CopyDelivery::early, CopyDelivery::late}) {
    for (uint64_t seed : {0, 1, 2}) {
      Options options;
      options.copy_delivery = delivery;
      options.seed = seed;
      options.resident_blocks = seed == 1 ? 2 : 8;
      all.push_back(options);
    }
  }
  return all;
}

// c = a b^T through gemm_f16 of the text. Throws Fault; gives the report, and the largest error against
// double.
struct GemmRun {
  LaunchReport report;
  double error = 0;  // absolute, products of values in [-1, 1]
  bool is_nan = false;
};
GemmRun run_gemm(Machine& machine, const LoadedModule& module, uint32_t m, uint32_t n, uint32_t k,
                 const Options& options);

}  // namespace bitloom::ptx::testing
