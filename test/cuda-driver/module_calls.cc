// Modules and the handles of their kernels.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>

#include "calls.h"
#include "state.h"

namespace bitloom::cuda_emulation {

int number_after(const std::string& text, const char* directive, const char* skip) {
  const size_t at = text.find(directive);
  if (at == std::string::npos) return 0;
  size_t i = text.find_first_not_of(skip, at + std::strlen(directive));
  int number = 0;
  for (; i < text.size() && ((text[i] >= '0' && text[i] <= '9') || text[i] == '.'); ++i) {
    if (text[i] != '.') number = number * 10 + (text[i] - '0');
  }
  return number;
}

namespace {

// Parsed texts, kept: a program loads the same few modules again after a reset.
std::shared_ptr<const ptx::Module> parse(const std::string& text) {
  static auto* const parsed = new std::map<std::string, std::shared_ptr<const ptx::Module>>;
  std::shared_ptr<const ptx::Module>& module = (*parsed)[text];
  if (!module) module = ptx::Module::parse(text);
  return module;
}

CUresult check_image(const Driver& driver, const Device& device, const void* image, std::string& text,
                     std::string& message) {
  // Compared as text: it may be shorter than these.
  const char* bytes = static_cast<const char*>(image);
  if (std::strncmp(bytes,
                   "\x7f"
                   "ELF",
                   4) == 0 ||
      std::strncmp(bytes, "\x50\xed\x55\xba", 4) == 0) {
    message = "machine code cannot be run here: PTX is wanted";
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
  }
  text = bytes;
  const int version = number_after(text, "\n.version", " \t"),
            target = number_after(text, "\n.target", " \tsm_");
  if (version == 0 || target == 0) {
    message = "neither PTX nor machine code";
    return CUDA_ERROR_INVALID_IMAGE;
  }
  // CUDA 13.x knows PTX ISA 9.x, 12.x knows 8.x, 11.x knows 7.x.
  const int newest = (driver.settings.driver / 1000 - 4) * 10 + driver.settings.driver % 1000 / 10;
  if (version > newest) {
    message = "PTX version " + std::to_string(version) + " / 10 is newer than the driver's";
    return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
  }
  if (target > device.arch) {
    message = "PTX for sm_" + std::to_string(target) + " on an sm_" + std::to_string(device.arch);
    return CUDA_ERROR_INVALID_PTX;
  }
  return CUDA_SUCCESS;
}

CUresult load(Driver& driver, Context& context, const void* image, CUmodule* out, std::string& message) {
  Device& device = *context.device;
  std::string text;
  const CUresult checked = check_image(driver, device, image, text, message);
  if (checked != CUDA_SUCCESS) return checked;
  const auto module = std::make_shared<Module>();
  module->context = &context;
  module->text_hash = std::hash<std::string>()(text);
  try {
    const std::shared_ptr<const ptx::Module> parsed = parse(text);
    const std::lock_guard machine_lock(device.machine_mutex);
    module->loaded = &device.machine->load(parsed);
  } catch (const ptx::Fault& fault) {
    message = fault.what();
    return CUDA_ERROR_INVALID_PTX;
  }
  *out = driver.modules.add(module);
  return CUDA_SUCCESS;
}

// Writes the message into the log buffer among the options, if there is one.
void write_log(const std::string& message, unsigned int count, const int* options, void** values) {
  char* buffer = nullptr;
  size_t* size_slot = nullptr;
  for (unsigned int i = 0; i < count; ++i) {
    if (options[i] == CU_JIT_ERROR_LOG_BUFFER) buffer = static_cast<char*>(values[i]);
    if (options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES) size_slot = reinterpret_cast<size_t*>(&values[i]);
  }
  if (!buffer || !size_slot) return;
  const size_t room = static_cast<uint32_t>(*size_slot);
  const size_t used = room == 0 ? 0 : std::min(message.size(), room - 1);
  if (room > 0) {
    std::memcpy(buffer, message.data(), used);
    buffer[used] = 0;
  }
  *size_slot = used;
}

}  // namespace

CUresult cuModuleLoadDataEx(CUmodule* out, const void* image, unsigned int count, int* options,
                            void** values) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    if (!out || !image || (count > 0 && (!options || !values))) return CUDA_ERROR_INVALID_VALUE;
    std::string message;
    const CUresult result = load(driver, context, image, out, message);
    if (result != CUDA_ERROR_NO_BINARY_FOR_GPU && result != CUDA_SUCCESS)
      std::fprintf(stderr, "cuda emulation: cuModuleLoadData: %s\n", message.c_str());
    write_log(message, count, options, values);
    return result;
  });
}

CUresult cuModuleLoadData(CUmodule* out, const void* image) {
  return cuda_emulation::cuModuleLoadDataEx(out, image, 0, nullptr, nullptr);
}

CUresult cuModuleUnload(CUmodule handle) {
  return in_context([&](Driver& driver, Context& context, Lock& lock) -> CUresult {
    if (!driver.modules.find(handle)) return CUDA_ERROR_INVALID_HANDLE;
    wait_for_context(driver, context, lock);
    driver.modules.remove(handle);
    driver.functions.remove_if([](const Function& function) { return function.module.expired(); });
    return context.error;
  });
}

CUresult cuModuleGetFunction(CUfunction* out, CUmodule handle, const char* name) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    const std::shared_ptr<Module> module = driver.modules.find(handle);
    if (!module) return CUDA_ERROR_INVALID_HANDLE;
    if (!out || !name) return CUDA_ERROR_INVALID_VALUE;
    for (const auto& [known, function] : driver.functions.all()) {  // a function has one handle
      if (function->name == name && function->module.lock() == module) return *out = known, CUDA_SUCCESS;
    }
    const auto found = module->loaded->module->functions.find(name);
    if (found == module->loaded->module->functions.end() || !found->second.is_entry)
      return CUDA_ERROR_NOT_FOUND;
    const auto function = std::make_shared<Function>();
    function->context = &context;
    function->module = module;
    function->name = name;
    const std::lock_guard machine_lock(context.device->machine_mutex);
    function->program = &module->loaded->program(name);
    *out = driver.functions.add(function);
    return CUDA_SUCCESS;
  });
}

}  // namespace bitloom::cuda_emulation
