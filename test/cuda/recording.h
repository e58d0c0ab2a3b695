// Launches of a kernel as they were, so that each can run again alone: mutants of the kernel run in its
// place, without the operator's host code, the kernels around it and the tests' weights.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "mutation_calls.h"

namespace bitloom::cuda::testing {

// Memory of one allocation around a launch.
struct RecordedMemory {
  uint64_t address;
  std::vector<uint8_t> before, after;
  std::vector<std::pair<uint64_t, uint64_t>> unwritten;  // before: first byte, bytes
};

struct RecordedLaunch {
  ptx::LaunchConfig config;
  std::vector<RecordedMemory> memory;
  uint64_t sectors = 0, wavefronts = 0;  // that it asked for
  uint64_t instructions = 0;             // of warps
  std::set<int32_t> lines;               // of the text, whose instructions it executed
};

// The launches of `kernel` in one run of an operator, on the queue that it ran on.
class Recording {
 public:
  // text: a module with this kernel alone (text_of_kernel).
  Recording(const Run& run, const Settings& settings, const std::string& kernel,
            std::shared_ptr<const ptx::Module> module);

  const std::vector<RecordedLaunch>& launches() const { return launches_; }
  // Whether this module's kernel comes to a fault, leaves other bytes in memory, or (counts) asks for other
  // memory transactions than the recorded one. Throws Fault only where the module can't be launched at all.
  bool differs(const RecordedLaunch& launch, std::shared_ptr<const ptx::Module> module,
               const ptx::Options& options, bool counts);

 private:
  void restore(const RecordedLaunch& launch);

  std::string kernel_;
  TestQueue queue_;
  std::vector<RecordedLaunch> launches_;
};

}  // namespace bitloom::cuda::testing
