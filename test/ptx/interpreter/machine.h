// The entry: a device with memory, on which modules are loaded and kernels launched.
//
//   Machine machine;
//   const LoadedModule& module = machine.load(Module::parse(ptx));
//   uint64_t x = machine.memory.allocate(bytes);
//   machine.memory.write(x, data, bytes);
//   LaunchReport report = machine.launch(module, "kernel", {.grid = {n}, .block = {128}, .parameters =
//   pack(x, n)});
//
// Everything throws Fault. After a faulted launch, memory holds what had been written by then.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "counters.h"
#include "fault.h"
#include "memory.h"
#include "module.h"
#include "options.h"
#include "program.h"

namespace bitloom::ptx {

struct LaunchConfig {
  uint32_t grid[3] = {1, 1, 1};
  uint32_t block[3] = {1, 1, 1};
  uint32_t shared_bytes = 0;             // dynamic
  std::vector<uint8_t> parameters = {};  // packed: each at the alignment of its type
  Options options = {};
};

struct LaunchReport {
  Counters counters;
  uint64_t bytes_moved = 0;  // global: sectors * 32
};

class LoadedModule {
 public:
  std::shared_ptr<const Module> module;
  std::map<std::string, uint64_t> addresses;  // of global and const variables
  // The compiled kernel. Throws Fault(bad_launch) if there is none of the name.
  const Program& program(const std::string& kernel) const;

 private:
  mutable std::map<std::string, std::unique_ptr<Program>> programs_;
};

class Machine {
 public:
  DeviceMemory memory;

  // Allocates and initializes the module's variables. The result lives as long as the machine.
  const LoadedModule& load(std::shared_ptr<const Module> module);
  void unload(const LoadedModule& module);
  LaunchReport launch(const LoadedModule& module, const std::string& kernel, const LaunchConfig& config);

  // Limits of the emulated device, checked at launch.
  uint32_t max_threads_per_block = 1024;
  uint32_t max_shared_bytes = 227 * 1024;

 private:
  std::vector<std::unique_ptr<LoadedModule>> modules_;
};

// Parameters in the order of the kernel's, each aligned to its size.
template <typename... T>
std::vector<uint8_t> pack(const T&... values) {
  std::vector<uint8_t> bytes;
  const auto append = [&](const auto& value) {
    const size_t at = (bytes.size() + alignof(std::decay_t<decltype(value)>) - 1) /
                      alignof(std::decay_t<decltype(value)>) * alignof(std::decay_t<decltype(value)>);
    bytes.resize(at + sizeof(value));
    std::memcpy(bytes.data() + at, &value, sizeof(value));
  };
  (append(values), ...);
  return bytes;
}

}  // namespace bitloom::ptx
