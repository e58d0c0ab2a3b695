#include "report.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bitloom::cuda_emulation {
namespace {

struct Live {
  size_t allocations = 0, pinned = 0, streams = 0, events = 0, modules = 0, graphs = 0, graph_execs = 0,
         contexts = 0;
  uint64_t bytes = 0;
};

Live count_live(const Driver& driver) {
  Live live;
  for (const auto& device : driver.devices) {
    for (const auto& [address, allocation] : device->allocations) {
      if (allocation.is_freed) continue;
      ++live.allocations;
      live.bytes += allocation.bytes;
    }
    live.contexts += static_cast<size_t>(device->context.retained);
  }
  live.pinned = driver.host_ranges.size();
  live.streams = driver.streams.size();
  live.events = driver.events.size();
  live.modules = driver.modules.size();
  live.graphs = driver.graphs.size();
  live.graph_execs = driver.graph_execs.size();
  return live;
}

bool is_set(const char* name) {
  const char* value = std::getenv(name);
  return value && std::strcmp(value, "1") == 0;
}

}  // namespace

std::string live_json(const Driver& driver) {
  const Live live = count_live(driver);
  char text[320];
  std::snprintf(
      text, sizeof text,
      "{\"allocations\":%zu,\"bytes\":%llu,\"pinned\":%zu,\"streams\":%zu,\"events\":%zu,\"modules\":%zu,"
      "\"graphs\":%zu,\"graphExecs\":%zu,\"contexts\":%zu}",
      live.allocations, static_cast<unsigned long long>(live.bytes), live.pinned, live.streams, live.events,
      live.modules, live.graphs, live.graph_execs, live.contexts);
  return text;
}

std::string faults_json(const Driver& driver) {
  std::string out = "[";
  for (const std::string& message : driver.faults) out += (out.size() > 1 ? "," : "") + json_string(message);
  return out + "]";
}

std::string counters_json(const Driver& driver) {
  std::string out = "{\"arch\":" + std::to_string(driver.settings.arch) + ",\"kernels\":[";
  bool first = true;
  for (const auto& [key, counters] : driver.counters) {
    out += (first ? "" : ",") + counters.json(true);
    first = false;
  }
  out += "],\"calls\":{";
  first = true;
  for (const auto& [name, count] : driver.failures.calls()) {
    out += (first ? "" : ",") + json_string(name) + ":" + std::to_string(count);
    first = false;
  }
  out += "},\"faults\":" + faults_json(driver) + ",\"live\":" + live_json(driver) + ",\"peakBytes\":[";
  for (const auto& device : driver.devices)
    out += (device->ordinal ? "," : "") + std::to_string(device->peak_bytes);
  return out + "]}";
}

void write_reports(const Driver& driver) {
  if (is_set("BITLOOM_CUDA_EMULATION_LEAKS"))
    std::fprintf(stderr, "cuda emulation: alive at exit: %s\n", live_json(driver).c_str());
  const char* path = std::getenv("BITLOOM_CUDA_EMULATION_COUNTERS");
  if (!path || !driver.is_initialized) return;
  std::string name = path;
  const size_t place = name.find("%p");
  if (place != std::string::npos) name.replace(place, 2, std::to_string(getpid()));
  if (FILE* file = std::fopen(name.c_str(), "w")) {
    std::fprintf(file, "%s\n", counters_json(driver).c_str());
    std::fclose(file);
  } else {
    std::fprintf(stderr, "cuda emulation: cannot write %s\n", name.c_str());
  }
}

}  // namespace bitloom::cuda_emulation
