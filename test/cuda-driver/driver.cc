// The state: made from the environment, taken down context by context, reported at the program's end.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "report.h"
#include "state.h"
#include "thread_contexts.h"

namespace bitloom::cuda_emulation {
namespace {

void at_exit() {
  Driver& driver = Driver::get();
  Lock lock(driver.mutex);
  // The executor may be in a kernel, which ends, or in a host function that waits for this thread, which need
  // not.
  driver.stopping = true;
  driver.wake.notify_all();
  driver.changed.notify_all();
  driver.changed.wait_for(lock, std::chrono::seconds(2), [&] { return !driver.is_executing; });
  write_reports(driver);
}

std::string read_environment(Driver& driver) {
  const char* settings = std::getenv("BITLOOM_CUDA_EMULATION");
  const char* failures = std::getenv("BITLOOM_CUDA_EMULATION_FAIL");
  std::string wrong = settings ? apply_settings(driver.settings, settings) : "";
  if (wrong.empty() && failures) wrong = driver.failures.add(failures);
  return wrong;
}

}  // namespace

Driver& Driver::get() {
  static Driver* const driver = [] {
    auto* made = new Driver;
    made->environment_error = read_environment(*made);
    std::atexit(at_exit);
    return made;
  }();
  return *driver;
}

void create_devices(Driver& driver) {
  for (auto& device : driver.devices)
    driver.retired.push_back(std::move(device));  // threads may still name them
  driver.devices.clear();
  for (int i = 0; i < driver.settings.devices; ++i) {
    auto device = std::make_unique<Device>();
    device->ordinal = i;
    device->arch = driver.settings.arch;
    device->context.device = device.get();
    driver.devices.push_back(std::move(device));
  }
}

void activate(Driver& driver, Context& context) {
  Device& device = *context.device;
  device.machine = std::make_unique<ptx::Machine>();
  device.machine->max_shared_bytes = static_cast<uint32_t>(arch_limits(device.arch)->shared_per_block);
  // One address space for all devices. Variables of modules lie where the machine puts them, below this.
  device.next_address = 0x100000000000ull + (static_cast<uint64_t>(device.ordinal) << 40);
  context.error = CUDA_SUCCESS;
  context.is_active = true;
  const auto legacy = std::make_shared<Stream>();
  legacy->context = &context;
  legacy->is_blocking = true;
  context.legacy = legacy.get();
  driver.queues.push_back(legacy);
}

Device* find_device(Driver& driver, CUdevice ordinal) {
  const bool exists = ordinal >= 0 && static_cast<size_t>(ordinal) < driver.devices.size();
  return exists ? driver.devices[static_cast<size_t>(ordinal)].get() : nullptr;
}

Device* find_device(Driver& driver, CUcontext context) {
  for (const auto& device : driver.devices) {
    if (reinterpret_cast<CUcontext>(&device->context) == context) return device.get();
  }
  return nullptr;
}

Context* current_context(Driver& driver, CUresult& result) {
  result = CUDA_SUCCESS;
  if (!driver.is_initialized) return result = CUDA_ERROR_NOT_INITIALIZED, nullptr;
  Device* device = find_device(driver, thread_contexts().empty() ? nullptr : thread_contexts().back());
  if (!device) return result = CUDA_ERROR_INVALID_CONTEXT, nullptr;
  if (!device->context.is_active) return result = CUDA_ERROR_CONTEXT_IS_DESTROYED, nullptr;
  if (device->context.error != CUDA_SUCCESS) return result = device->context.error, nullptr;
  return &device->context;
}

void record_fault(Driver& driver, const std::string& message) {
  driver.faults.push_back(message);
  std::fprintf(stderr, "cuda emulation: %s\n", message.c_str());
}

void fail_context(Driver& driver, Context& context, CUresult code, const std::string& message) {
  record_fault(driver, message);
  if (context.error == CUDA_SUCCESS) context.error = code;
}

std::shared_ptr<Stream> find_stream(Driver& driver, Context& context, CUstream handle) {
  if (handle == nullptr || handle == CU_STREAM_LEGACY) {
    for (const auto& stream : driver.queues) {
      if (stream.get() == context.legacy) return stream;
    }
  }
  const std::shared_ptr<Stream> stream = driver.streams.find(handle);
  return stream && stream->context == &context ? stream : nullptr;
}

void tear_down(Driver& driver, Context& context, Lock& lock) {
  if (!context.is_active) return;
  context.is_active = false;
  if (context.error == CUDA_SUCCESS) context.error = CUDA_ERROR_CONTEXT_IS_DESTROYED;  // drops what is queued
  driver.last_submission = {};
  wait_for_context(driver, context, lock);
  std::erase_if(driver.captures, [&](const auto& capture) { return capture->origin->context == &context; });
  driver.graph_execs.remove_of(&context);
  driver.graphs.remove_of(&context);
  driver.functions.remove_of(&context);
  driver.events.remove_of(&context);
  driver.streams.remove_of(&context);
  std::erase_if(driver.queues, [&](const auto& stream) { return stream->context == &context; });
  driver.modules.remove_of(&context);
  for (auto range = driver.host_ranges.begin(); range != driver.host_ranges.end();) {
    if (range->second.context != &context) {
      ++range;
      continue;
    }
    if (!range->second.is_registered) std::free(reinterpret_cast<void*>(range->first));
    range = driver.host_ranges.erase(range);
  }
  context.device->allocations.clear();
  context.device->uncommitted.clear();
  context.device->used_bytes = 0;
  context.device->machine.reset();
  context.error = CUDA_SUCCESS;
  context.legacy = nullptr;
}

CUresult refuse_in_capture(Driver& driver) {
  bool refused = false;
  for (const auto& capture : driver.captures) {
    const bool concerned = capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
                           (capture->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL &&
                            capture->thread == std::this_thread::get_id());
    if (!concerned) continue;
    refused = capture->invalidated = true;
  }
  return refused ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

Module::~Module() {
  if (!loaded || !context->device->machine) return;
  const std::lock_guard machine_lock(context->device->machine_mutex);
  context->device->machine->unload(*loaded);
}

}  // namespace bitloom::cuda_emulation
