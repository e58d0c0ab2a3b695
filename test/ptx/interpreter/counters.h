// What a launch did, per static instruction.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace bitloom::ptx {

struct Program;

struct InstrCount {
  uint64_t warps = 0;  // times issued, guard false for all lanes included
  uint64_t lanes = 0;  // lanes it was executed by
  // Memory instructions only. A request is one execution by one warp.
  uint64_t requests = 0;
  uint64_t bytes = 0;             // asked for by the lanes
  uint64_t used_bytes = 0;        // global: distinct bytes asked for per request, at most 32 per sector
  uint64_t sectors = 0;           // global: distinct 32-byte sectors per request
  uint64_t lines = 0;             // global: distinct 128-byte lines per request
  uint64_t wavefronts = 0;        // shared: passes over the banks
  uint64_t ideal_wavefronts = 0;  // shared: passes that bytes alone would need
};

class Counters {
 public:
  void reset(const Program& program);
  std::vector<InstrCount> counts;  // by instruction
  const Program* program = nullptr;

  uint64_t warp_instructions() const;
  uint64_t mma() const;
  InstrCount total(const std::string& opcode_prefix) const;  // "ld.global", "" for all
  std::map<std::string, uint64_t> by_opcode() const;         // "mad.lo.s32" -> warps
  std::map<std::string, uint64_t> by_line() const;           // "gemm.cu:12" -> warps
  std::vector<uint32_t> never_executed() const;              // by no lane; a branch counts once it is reached
  void add(const Counters& other);                           // of the same program
  // A table of memory instructions and totals, for people.
  std::string report() const;
};

}  // namespace bitloom::ptx
