// What the emulated machine is like and which calls fail: from the environment, and from tests at run time.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "api.h"
#include "options.h"

namespace bitloom::cuda_emulation {

struct Settings {
  int devices = 1;
  int arch = 80;                 // compute capability * 10
  int driver = 13000;            // 1000 * major + 10 * minor
  uint64_t memory = 2ull << 30;  // of each device, bytes
  int multiprocessors = 4;
  uint64_t seed = 0;  // 0: work runs in the order it was submitted, where streams leave a choice
  uint64_t delay_microseconds = 100;  // that work waits for more work, unless a thread waits for it
  bool verify_pinned = true;          // pinned sources must not change between call and execution
  ptx::Options launch;                // of every launch; the schedule's seed is drawn per launch
};

// Applies "name=value,name=value". Gives an empty string, or what is wrong; then nothing is changed.
std::string apply_settings(Settings& settings, const std::string& text);

// Failures to inject: "cuMemAlloc_v2:3=2" lets the third call from now give 2, "...:3+=2" that and all later
// ones; "kernel:1=700" fails the first kernel to be executed from now, where its result is awaited;
// "missing:cuMemAllocAsync" hides a function from cuGetProcAddress.
class Failures {
 public:
  // Adds the comma-separated rules. Gives an empty string, or what is wrong; then none is added.
  std::string add(const std::string& text);
  void clear();
  // Counts a call of `name`; the code it shall fail with or CUDA_SUCCESS.
  CUresult next(const std::string& name);
  bool is_missing(const std::string& name) const { return missing_.count(name) != 0; }
  const std::map<std::string, uint64_t>& calls() const { return calls_; }

 private:
  struct Rule {
    std::string name;
    uint64_t count;  // the call that fails, from 1
    bool from_then_on;
    CUresult code;
    uint64_t seen = 0;
  };
  std::vector<Rule> rules_;
  std::set<std::string> missing_;
  std::map<std::string, uint64_t> calls_;
};

// Limits by compute capability, from the table of technical specifications of the CUDA C++ Programming Guide.
struct ArchLimits {
  int arch;
  int shared_per_block;  // opt-in, bytes
  int shared_per_multiprocessor;
  int threads_per_multiprocessor;
  int blocks_per_multiprocessor;
};
// Null for an architecture that is not emulated.
const ArchLimits* arch_limits(int arch);

}  // namespace bitloom::cuda_emulation
