// Launches of kernels as they were, so that each can run again alone: mutants of a kernel run in its place,
// without the operator's host code, the kernels around it and the tests' weights.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "test_queue.h"

namespace bitloom::cuda::testing {

// Memory of one allocation around a launch.
struct RecordedMemory {
  uint64_t address;
  std::vector<uint8_t> before, after;
  std::vector<std::pair<uint64_t, uint64_t>> unwritten;  // before: first byte, bytes
};

struct RecordedLaunch {
  ptx::LaunchConfig config;
  std::vector<RecordedMemory> memory;    // that its parameters point at
  uint64_t sectors = 0, wavefronts = 0;  // that it asked for
  uint64_t instructions = 0;             // of warps
  std::vector<bool> executed;            // by instruction of the program
};

// Launches on the queues that it watches, of the kernels that are wanted. Where blocks of a kernel may take
// turns, for which no call of a test is large enough, some launches are made with one block along that axis.
class Recorder {
 public:
  explicit Recorder(std::set<std::string> wanted) : wanted_(std::move(wanted)) {}

  void watch(TestQueue& queue);
  // Of the code for an architecture.
  const std::vector<RecordedLaunch>& launches(int32_t arch, const std::string& kernel) const;

 private:
  std::set<std::string> wanted_;
  std::map<std::pair<int32_t, std::string>, std::vector<RecordedLaunch>> launches_;
  std::map<std::pair<int32_t, std::string>, int> turns_;  // launches that could be made so
};

// Runs recorded launches again.
class Player {
 public:
  explicit Player(int32_t arch);
  // Whether this module's kernel comes to a fault, leaves other bytes in memory, or (counts) asks for other
  // memory transactions than the recorded one. Throws Fault only where the module can't be loaded at all.
  bool differs(const RecordedLaunch& launch, const std::string& kernel,
               std::shared_ptr<const ptx::Module> module, const ptx::Options& options, bool counts);

 private:
  void restore(const RecordedLaunch& launch);

  ptx::Machine machine_;
  std::vector<uint64_t> restored_;  // addresses
};

}  // namespace bitloom::cuda::testing
