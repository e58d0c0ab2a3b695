#include "test_queue.h"

#include <cstdio>
#include <fstream>
#include <sstream>

#include "coverage.h"
#include "native/base/error.h"

namespace bitloom::cuda {
extern const char* const kModuleNames[];  // modules.cc of the build; null ends them
}

namespace bitloom::cuda::testing {
namespace {

constexpr int32_t kArchs[] = {BITLOOM_CUDA_TEST_ARCHS};

// Of an A100, H100, B200 and RTX PRO 6000 (sm_120).
Limits limits_of(const Settings& settings) {
  const int32_t arch = settings.arch;
  Limits limits = arch >= 120   ? Limits{arch, 188, 99 << 10, 100 << 10, 1536}
                  : arch >= 100 ? Limits{arch, 148, 227 << 10, 228 << 10, 2048}
                  : arch >= 90  ? Limits{arch, 132, 227 << 10, 228 << 10, 2048}
                                : Limits{arch, 108, 163 << 10, 164 << 10, 2048};
  if (settings.multiprocessors > 0) limits.multiprocessors = settings.multiprocessors;
  return limits;
}

struct Parsed {
  std::shared_ptr<const ptx::Module> module;
  std::string text;
};

std::string path_of(const std::string& module, int32_t arch) {
  return std::string(BITLOOM_CUDA_PTX) + "/" + module + ".compute_" + std::to_string(arch) + ".ptx";
}

// Parsed once for all queues.
const std::map<std::string, Parsed>::value_type& parsed(const std::string& module, int32_t arch) {
  static std::map<std::string, Parsed> modules;
  const std::string name = module + ".compute_" + std::to_string(arch);
  auto at = modules.find(name);
  if (at == modules.end()) {
    std::ifstream file(path_of(module, arch));
    std::stringstream text;
    text << file.rdbuf();
    if (text.str().empty()) throw std::runtime_error("no PTX " + name);
    at = modules.emplace(name, Parsed{ptx::Module::parse(text.str()), text.str()}).first;
  }
  return *at;
}

uint64_t address_of(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

}  // namespace

int32_t first_arch() { return kArchs[0]; }

std::vector<Settings> all_archs() {
  std::vector<Settings> all;
  for (int32_t arch : kArchs) all.push_back({arch, {}, 0});
  return all;
}

std::vector<Settings> all_schedules() {
  std::vector<Settings> all;
  for (int32_t arch : kArchs) {
    for (ptx::CopyDelivery delivery :
         {ptx::CopyDelivery::poisoned, ptx::CopyDelivery::early, ptx::CopyDelivery::late}) {
      for (uint64_t seed : {0, 1, 2}) {
        Settings settings{arch, {}, 0};
        settings.options.copy_delivery = delivery;
        settings.options.seed = seed;
        settings.options.resident_blocks = seed == 1 ? 2 : 8;
        all.push_back(settings);
      }
    }
  }
  return all;
}

std::function<void(TestQueue&)> TestQueue::made;

TestQueue::TestQueue(const Settings& given) : settings(given), limits_(limits_of(given)) {
  machine.max_shared_bytes = static_cast<uint32_t>(limits_.shared_bytes_per_block);
  if (made) made(*this);
}

// The build makes PTX of each module for the architectures that run it.
bool TestQueue::has_code(const ModuleImages& module) const {
  return std::ifstream(path_of(module.name, settings.arch)).good();
}

bl_status TestQueue::allocate_scratch(uint64_t bytes, void** out, bl_error* error) {
  if (fail_after_allocations == 0) {
    return fail(error, BL_STATUS_out_of_memory, "out of device memory: %llu bytes",
                static_cast<unsigned long long>(bytes));
  }
  --fail_after_allocations;
  const uint64_t address = machine.memory.allocate(bytes == 0 ? 1 : bytes);
  scratch_[address] = bytes;
  scratch_bytes_ += bytes;
  scratch_peak = std::max(scratch_peak, scratch_bytes_);
  *out = reinterpret_cast<void*>(address);
  return BL_STATUS_ok;
}

void TestQueue::free_scratch(void* memory) {
  const auto at = scratch_.find(address_of(memory));
  if (at == scratch_.end()) return;  // the next launch that uses it faults
  scratch_bytes_ -= at->second;
  scratch_.erase(at);
  machine.memory.free(address_of(memory));
}

bl_status TestQueue::allocate_table(const void* host, uint64_t bytes, void** out, bl_error* error) {
  BL_RETURN_IF_ERROR(allocate_scratch(bytes, out, error));
  if (bytes > 0) machine.memory.write(address_of(*out), host, bytes);
  return BL_STATUS_ok;
}

bl_status TestQueue::fill_zero(void* device, uint64_t bytes, bl_error*) {
  if (bytes > 0) machine.memory.fill(address_of(device), 0, bytes);
  return BL_STATUS_ok;
}

bl_status TestQueue::download(void* host, const void* device, uint64_t bytes, bl_error*) {
  read(host, device, bytes);
  return BL_STATUS_ok;
}

void* TestQueue::allocate(uint64_t bytes) {
  allocated_.push_back(machine.memory.allocate(bytes == 0 ? 1 : bytes));
  return reinterpret_cast<void*>(allocated_.back());
}

std::vector<uint64_t> TestQueue::allocations() const {
  std::vector<uint64_t> all = allocated_;
  for (const auto& [address, bytes] : scratch_) all.push_back(address);
  return all;
}

void TestQueue::write(void* device, const void* host, uint64_t bytes) {
  if (bytes > 0) machine.memory.write(address_of(device), host, bytes);
}

void TestQueue::read(void* host, const void* device, uint64_t bytes) {
  if (bytes == 0) return;
  if (!is_written(device, bytes)) throw std::runtime_error("a result was not written");
  machine.memory.read(host, address_of(device), bytes);
}

bool TestQueue::is_written(const void* device, uint64_t bytes) {
  return machine.memory.is_written(address_of(device), bytes);
}

bl_status TestQueue::launch_bytes(const ModuleImages& module, const char* name, const LaunchShape& shape,
                                  const void* params, bl_error*) {
  const auto& [image, content] = parsed(module.name, settings.arch);
  const bool is_mutant = name == mutated_kernel;
  const ptx::LoadedModule*& loaded = modules_[is_mutant ? "mutant" : module.name];
  if (loaded == nullptr) loaded = &machine.load(is_mutant ? mutated_module : content.module);
  const ptx::Program& program = loaded->program(name);
  for (const std::string& unknown : program.unknown)
    throw std::runtime_error(std::string(name) + ": the interpreter does not know " + unknown);
  ptx::LaunchConfig config;
  config.grid[0] = shape.grid.x, config.grid[1] = shape.grid.y, config.grid[2] = shape.grid.z;
  config.block[0] = shape.block.x, config.block[1] = shape.block.y, config.block[2] = shape.block.z;
  config.shared_bytes = shape.shared_bytes;
  const auto* bytes = static_cast<const uint8_t*>(params);
  config.parameters.assign(bytes, bytes + program.parameter_bytes);
  config.options = settings.options;
  if (before_launch) before_launch(name, config);
  launches.push_back({module.name, name, shape, machine.launch(*loaded, name, config)});
  if (after_launch) after_launch(name, launches.back().report);
  if (!is_mutant && covers) remember_executed(image, name, launches.back().report.counters);
  return BL_STATUS_ok;
}

const std::string& text_of_image(const std::string& image) {
  return parsed(image.substr(0, image.find('.')), std::stoi(image.substr(image.rfind('_') + 1))).second.text;
}

std::vector<std::string> modules_of(int32_t arch) {
  std::vector<std::string> names;
  for (const char* const* name = kModuleNames; *name != nullptr; ++name) {
    if (std::ifstream(path_of(*name, arch)).good()) names.emplace_back(*name);
  }
  return names;
}

std::vector<std::string> kernels_of_image(const std::string& image) {
  const std::string& text = text_of_image(image);
  std::vector<std::string> names;
  for (size_t at = text.find(".entry "); at != std::string::npos; at = text.find(".entry ", at + 1)) {
    const size_t from = at + 7;
    names.push_back(text.substr(from, text.find_first_of("( \n", from) - from));
  }
  return names;
}

}  // namespace bitloom::cuda::testing
