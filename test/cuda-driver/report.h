// What is told about a run: counters, faults, what is alive, as JSON and at the program's end.
#pragma once

#include <string>

#include "state.h"

namespace bitloom::cuda_emulation {

// {"arch":80,"kernels":[...],"calls":{...},"faults":[...],"live":{...},"memory":[...]}
std::string counters_json(const Driver& driver);
std::string live_json(const Driver& driver);
std::string faults_json(const Driver& driver);
// At exit: leaks (BITLOOM_CUDA_EMULATION_LEAKS=1) to stderr, counters to the file that
// BITLOOM_CUDA_EMULATION_COUNTERS names (%p stands for the process).
void write_reports(const Driver& driver);

}  // namespace bitloom::cuda_emulation
