// What all launches of one kernel did, summed; the figures that decide its speed, and which instructions have
// run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "machine.h"

namespace bitloom::cuda_emulation {

struct KernelCounters {
  std::string kernel;
  std::string target;  // of the PTX: "sm_80"
  uint64_t launches = 0;
  uint64_t blocks = 0;
  uint32_t threads = 0;               // of a block, at most
  uint32_t dynamic_shared_bytes = 0;  // of a block, at most
  uint64_t warp_instructions = 0;
  uint64_t mma = 0;
  struct Global {
    uint64_t requests = 0;
    uint64_t used_bytes = 0;   // distinct bytes per request
    uint64_t moved_bytes = 0;  // sectors * 32
  };
  Global loads, stores;  // cp.async is a load; atomics count as stores
  uint64_t shared_requests = 0;
  uint64_t wavefronts = 0;
  uint64_t ideal_wavefronts = 0;
  uint64_t matrix_wavefronts = 0;  // of these, ldmatrix and stmatrix
  uint64_t ideal_matrix_wavefronts = 0;
  std::vector<bool> executed;      // per instruction of the program
  std::vector<std::string> texts;  // and where it stands, for those that never run

  void add(const ptx::Counters& counters, const ptx::LaunchConfig& config);
  std::string json(bool with_never_executed) const;
};

std::string json_string(const std::string& text);

}  // namespace bitloom::cuda_emulation
