// Initialization, devices, contexts.
#include <cstdio>
#include <cstring>

#include "calls.h"
#include "state.h"
#include "thread_contexts.h"

namespace bitloom::cuda_emulation {

CUresult cuInit(unsigned int flags) {
  Driver& driver = Driver::get();
  const Lock lock(driver.mutex);
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  if (!driver.environment_error.empty()) {
    std::fprintf(stderr, "cuda emulation: %s\n", driver.environment_error.c_str());
    return CUDA_ERROR_SYSTEM_NOT_READY;
  }
  if (driver.settings.devices == 0) return CUDA_ERROR_NO_DEVICE;
  if (!driver.is_initialized) create_devices(driver);
  driver.is_initialized = true;
  return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int* version) {
  if (!version) return CUDA_ERROR_INVALID_VALUE;
  Driver& driver = Driver::get();
  const Lock lock(driver.mutex);
  *version = driver.settings.driver;
  return CUDA_SUCCESS;
}

namespace {

// Runs body(driver, device) with the mutex held.
template <typename Body>
CUresult with_device(CUdevice ordinal, const void* out, Body&& body) {
  Driver& driver = Driver::get();
  Lock lock(driver.mutex);
  if (!driver.is_initialized) return CUDA_ERROR_NOT_INITIALIZED;
  Device* device = find_device(driver, ordinal);
  if (!device) return CUDA_ERROR_INVALID_DEVICE;
  if (!out) return CUDA_ERROR_INVALID_VALUE;
  return body(driver, *device, lock);
}

}  // namespace

CUresult cuDeviceGetCount(int* count) {
  Driver& driver = Driver::get();
  const Lock lock(driver.mutex);
  if (!driver.is_initialized) return CUDA_ERROR_NOT_INITIALIZED;
  if (!count) return CUDA_ERROR_INVALID_VALUE;
  *count = static_cast<int>(driver.devices.size());
  return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return with_device(ordinal, device,
                     [&](Driver&, Device&, Lock&) { return *device = ordinal, CUDA_SUCCESS; });
}

CUresult cuDeviceGetName(char* name, int bytes, CUdevice device) {
  return with_device(device, name, [&](Driver&, Device& found, Lock&) {
    if (bytes <= 0) return CUDA_ERROR_INVALID_VALUE;
    std::snprintf(name, static_cast<size_t>(bytes), "Emulated sm_%d", found.arch);
    return CUDA_SUCCESS;
  });
}

CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  return with_device(device, bytes, [&](Driver& driver, Device&, Lock&) {
    return *bytes = driver.settings.memory, CUDA_SUCCESS;
  });
}

CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  return with_device(device, uuid, [&](Driver&, Device& found, Lock&) {
    std::memcpy(uuid->bytes, "bitloom emulated", 16);
    uuid->bytes[15] = static_cast<char>(found.ordinal);
    return CUDA_SUCCESS;
  });
}
CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
  return cuda_emulation::cuDeviceGetUuid(uuid, device);
}

CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
  return with_device(device, value, [&](Driver& driver, Device& found, Lock&) {
    const ArchLimits& limits = *arch_limits(found.arch);
    switch (attribute) {
#define BITLOOM_CUDA_ATTRIBUTE(number, name, result) \
  case number:                                       \
    *value = result;                                 \
    return CUDA_SUCCESS;
#include "attributes.inc"
#undef BITLOOM_CUDA_ATTRIBUTE
      default:
        std::fprintf(stderr, "cuda emulation: cuDeviceGetAttribute: attribute %d is not emulated\n",
                     attribute);
        return CUDA_ERROR_INVALID_VALUE;
    }
  });
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return with_device(device, context, [&](Driver& driver, Device& found, Lock&) {
    if (!found.context.is_active) activate(driver, found.context);
    ++found.context.retained;
    *context = reinterpret_cast<CUcontext>(&found.context);
    return CUDA_SUCCESS;
  });
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  return with_device(device, &device, [&](Driver& driver, Device& found, Lock& lock) {
    if (found.context.retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
    if (--found.context.retained > 0) return CUDA_SUCCESS;
    wait_for_context(driver, found.context, lock);
    tear_down(driver, found.context, lock);
    return CUDA_SUCCESS;
  });
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice device) {
  return with_device(device, &device, [&](Driver& driver, Device& found, Lock& lock) {
    tear_down(driver, found.context, lock);
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxPushCurrent_v2(CUcontext context) {
  Driver& driver = Driver::get();
  const Lock lock(driver.mutex);
  if (!driver.is_initialized) return CUDA_ERROR_NOT_INITIALIZED;
  if (!find_device(driver, context)) return CUDA_ERROR_INVALID_CONTEXT;
  thread_contexts().push_back(context);
  return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext* context) {
  Driver& driver = Driver::get();
  const Lock lock(driver.mutex);
  if (!driver.is_initialized) return CUDA_ERROR_NOT_INITIALIZED;
  if (thread_contexts().empty()) return CUDA_ERROR_INVALID_CONTEXT;
  if (context) *context = thread_contexts().back();
  thread_contexts().pop_back();
  return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
  Driver& driver = Driver::get();
  const Lock lock(driver.mutex);
  if (!driver.is_initialized) return CUDA_ERROR_NOT_INITIALIZED;
  if (context && !find_device(driver, context)) return CUDA_ERROR_INVALID_CONTEXT;
  std::vector<CUcontext>& stack = thread_contexts();
  if (!stack.empty()) stack.pop_back();
  if (context) stack.push_back(context);
  return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  Driver& driver = Driver::get();
  const Lock lock(driver.mutex);
  if (!driver.is_initialized) return CUDA_ERROR_NOT_INITIALIZED;
  if (!context) return CUDA_ERROR_INVALID_VALUE;
  *context = thread_contexts().empty() ? nullptr : thread_contexts().back();
  return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice* device) {
  return in_context([&](Driver&, Context& context, Lock&) {
    if (!device) return CUDA_ERROR_INVALID_VALUE;
    *device = context.device->ordinal;
    return CUDA_SUCCESS;
  });
}

CUresult cuCtxGetDevice_v2(CUdevice* device, CUcontext context) {
  if (!context) return cuda_emulation::cuCtxGetDevice(device);
  Driver& driver = Driver::get();
  const Lock lock(driver.mutex);
  const Device* found = find_device(driver, context);
  if (!found) return CUDA_ERROR_INVALID_CONTEXT;
  if (!device) return CUDA_ERROR_INVALID_VALUE;
  *device = found->ordinal;
  return CUDA_SUCCESS;
}

namespace {

CUresult synchronize(Driver& driver, Context& context, Lock& lock) {
  for (const auto& capture : driver.captures) {
    if (capture->origin->context != &context) continue;
    capture->invalidated = true;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  wait_for_context(driver, context, lock);
  return context.error;
}

}  // namespace

CUresult cuCtxSynchronize() {
  return in_context(
      [](Driver& driver, Context& context, Lock& lock) { return synchronize(driver, context, lock); });
}

CUresult cuCtxSynchronize_v2(CUcontext context) {
  if (!context) return cuCtxSynchronize();
  Driver& driver = Driver::get();
  Lock lock(driver.mutex);
  Device* found = find_device(driver, context);
  if (!found) return CUDA_ERROR_INVALID_CONTEXT;
  if (!found->context.is_active) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
  return found->context.error != CUDA_SUCCESS ? found->context.error
                                              : synchronize(driver, found->context, lock);
}

}  // namespace bitloom::cuda_emulation
