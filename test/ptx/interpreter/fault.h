// What a run can be faulted for. A Fault is thrown out of Module::parse, Machine::load and Machine::launch.
#pragma once

#include <stdexcept>
#include <string>

namespace bitloom::ptx {

// One row per kind: enumerator, and the words that its messages carry.
#define BITLOOM_PTX_FAULTS(X)                                      \
  X(syntax, "syntax error")                                        \
  X(unknown_instruction, "unknown instruction")                    \
  X(bad_launch, "bad launch")                                      \
  X(bad_address, "bad address")                                    \
  X(out_of_bounds, "out of bounds")                                \
  X(misaligned, "misaligned")                                      \
  X(unwritten_read, "read of unwritten memory")                    \
  X(shared_race, "race on shared memory")                          \
  X(global_race, "race on global memory")                          \
  X(read_only_written, "store to memory that is read as constant") \
  X(use_before_wait, "use of a pending copy before its wait")      \
  X(store_over_pending_copy, "store over a pending copy")          \
  X(divergent_barrier, "divergent barrier")                        \
  X(divergent_collective, "divergent collective")                  \
  X(deadlock, "deadlock")                                          \
  X(endless_loop, "endless loop")                                  \
  X(trap, "trap")

enum class FaultKind {
#define BITLOOM_PTX_FAULT(name, words) name,
  BITLOOM_PTX_FAULTS(BITLOOM_PTX_FAULT)
#undef BITLOOM_PTX_FAULT
};

inline const char* fault_words(FaultKind kind) {
  switch (kind) {
#define BITLOOM_PTX_FAULT(name, words) \
  case FaultKind::name:                \
    return words;
    BITLOOM_PTX_FAULTS(BITLOOM_PTX_FAULT)
#undef BITLOOM_PTX_FAULT
  }
  return "";
}

class Fault : public std::runtime_error {
 public:
  Fault(FaultKind kind, const std::string& message) : std::runtime_error(message), kind(kind) {}
  FaultKind kind;
};

}  // namespace bitloom::ptx
