#include "kernel_counters.h"

#include <algorithm>
#include <cstdio>

namespace bitloom::cuda_emulation {

std::string json_string(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", c);
      out += escape;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

void KernelCounters::add(const ptx::Counters& counters, const ptx::LaunchConfig& config) {
  const ptx::Program& program = *counters.program;
  if (executed.empty()) {
    kernel = program.kernel->name;
    target = program.module->target;
    executed.assign(counters.counts.size(), true);
    texts.resize(counters.counts.size());
    for (const uint32_t pc : counters.never_executed()) {
      executed[pc] = false;
      texts[pc] = program.location(pc) + ": " + std::string(program.info[pc].statement->text);
    }
  } else {
    std::vector<bool> now(counters.counts.size(), true);
    for (const uint32_t pc : counters.never_executed()) now[pc] = false;
    for (size_t i = 0; i < now.size(); ++i) executed[i] = executed[i] || now[i];
  }
  ++launches;
  blocks += uint64_t{config.grid[0]} * config.grid[1] * config.grid[2];
  threads = std::max(threads, config.block[0] * config.block[1] * config.block[2]);
  dynamic_shared_bytes = std::max(dynamic_shared_bytes, config.shared_bytes);
  for (size_t i = 0; i < counters.counts.size(); ++i) {
    const ptx::InstrCount& count = counters.counts[i];
    const std::string_view opcode = program.info[i].statement->opcode;
    warp_instructions += count.warps;
    if (opcode == "mma") mma += count.warps;
    const bool stores = opcode == "st" || opcode == "red" || opcode == "atom";
    if (count.sectors > 0) {
      Global& global = stores ? this->stores : loads;
      // A cp.async counts one request on each side of the copy.
      global.requests += opcode == "cp" ? count.requests / 2 : count.requests;
      global.used_bytes += count.used_bytes;
      global.moved_bytes += count.sectors * 32;
    }
    if (count.wavefronts > 0) {
      const bool matrix = opcode == "ldmatrix" || opcode == "stmatrix";
      shared_requests += opcode == "cp" ? count.requests / 2 : count.requests;
      wavefronts += count.wavefronts;
      ideal_wavefronts += count.ideal_wavefronts;
      if (matrix) matrix_wavefronts += count.wavefronts, ideal_matrix_wavefronts += count.ideal_wavefronts;
    }
  }
}

std::string KernelCounters::json(bool with_never_executed) const {
  std::string out = "{\"kernel\":" + json_string(kernel) + ",\"target\":" + json_string(target);
  const auto number = [&](const char* name, uint64_t value) {
    out += ",\"" + std::string(name) + "\":" + std::to_string(value);
  };
  const auto global = [&](const char* name, const Global& g) {
    out += ",\"" + std::string(name) + "\":{\"requests\":" + std::to_string(g.requests) +
           ",\"usedBytes\":" + std::to_string(g.used_bytes) +
           ",\"movedBytes\":" + std::to_string(g.moved_bytes) + "}";
  };
  number("launches", launches);
  number("blocks", blocks);
  number("threads", threads);
  number("dynamicSharedBytes", dynamic_shared_bytes);
  number("warpInstructions", warp_instructions);
  number("mma", mma);
  global("globalLoads", loads);
  global("globalStores", stores);
  number("sharedRequests", shared_requests);
  number("wavefronts", wavefronts);
  number("idealWavefronts", ideal_wavefronts);
  number("matrixWavefronts", matrix_wavefronts);
  number("idealMatrixWavefronts", ideal_matrix_wavefronts);
  number("instructions", executed.size());
  number("neverExecuted", static_cast<uint64_t>(std::count(executed.begin(), executed.end(), false)));
  if (with_never_executed) {
    out += ",\"neverExecutedAt\":[";
    bool first = true;
    for (size_t i = 0; i < executed.size(); ++i) {
      if (executed[i]) continue;
      out += (first ? "" : ",") + json_string(texts[i]);
      first = false;
    }
    out += "]";
  }
  return out + "}";
}

}  // namespace bitloom::cuda_emulation
