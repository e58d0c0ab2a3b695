// Memory of devices and pinned memory of the host.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "calls.h"
#include "ranges.h"
#include "state.h"

namespace bitloom::cuda_emulation {
namespace {

// Reserves addresses. They are multiples of 256, as documented, and of no more; never used twice, and apart.
CUresult reserve(Driver& driver, Device& device, size_t bytes, CUdeviceptr& address, Lock& lock) {
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  const auto is_too_much = [&] { return bytes > driver.settings.memory - device.used_bytes; };
  if (is_too_much()) wait_for_context(driver, device.context, lock);  // for frees that are on their way
  if (device.context.error != CUDA_SUCCESS) return device.context.error;
  if (is_too_much()) return CUDA_ERROR_OUT_OF_MEMORY;
  address = device.next_address + 256;
  device.next_address = (address + bytes + 8192) / 4096 * 4096;
  device.allocations[address] = {bytes};
  device.used_bytes += bytes;
  device.peak_bytes = std::max(device.peak_bytes, device.used_bytes);
  return CUDA_SUCCESS;
}

void forget(Device& device, CUdeviceptr address) {
  const auto found = device.allocations.find(address);
  if (found == device.allocations.end()) return;
  device.used_bytes -= found->second.bytes;
  device.allocations.erase(found);
}

}  // namespace

CUresult cuMemAlloc_v2(CUdeviceptr* out, size_t bytes) {
  return in_context([&](Driver& driver, Context& context, Lock& lock) -> CUresult {
    if (!out) return CUDA_ERROR_INVALID_VALUE;
    CUresult result = refuse_in_capture(driver);
    if (result == CUDA_SUCCESS) result = reserve(driver, *context.device, bytes, *out, lock);
    if (result == CUDA_SUCCESS) context.device->uncommitted.push_back({*out, bytes});
    return result;
  });
}

CUresult cuMemFree_v2(CUdeviceptr memory) {
  return in_context([&](Driver& driver, Context& context, Lock& lock) -> CUresult {
    if (memory == 0) return CUDA_SUCCESS;
    Device& device = *context.device;
    const CUresult refused = refuse_in_capture(driver);
    if (refused != CUDA_SUCCESS) return refused;
    const auto found = device.allocations.find(memory);
    if (found == device.allocations.end() || found->second.is_freed) {
      record_fault(driver, "cuMemFree: not a live allocation");
      return CUDA_ERROR_INVALID_VALUE;
    }
    found->second.is_freed = true;
    wait_for_context(driver, context, lock);
    if (context.error != CUDA_SUCCESS) return context.error;
    forget(device, memory);
    if (std::erase_if(device.uncommitted, [&](const auto& entry) { return entry.first == memory; }))
      return CUDA_SUCCESS;
    const std::lock_guard machine_lock(device.machine_mutex);
    memory_of(device).free(memory);
    return CUDA_SUCCESS;
  });
}

CUresult cuMemAllocAsync(CUdeviceptr* out, size_t bytes, CUstream handle) {
  return in_context([&](Driver& driver, Context& context, Lock& lock) -> CUresult {
    if (!out) return CUDA_ERROR_INVALID_VALUE;
    const std::shared_ptr<Stream> stream = find_stream(driver, context, handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;  // memory nodes are not emulated
    CUresult result = reserve(driver, *context.device, bytes, *out, lock);
    if (result != CUDA_SUCCESS) return result;
    const CUdeviceptr address = *out;
    return submit(driver, *stream, {.name = "cuMemAllocAsync", .run = [=](Device& device) {
                                      memory_of(device).allocate_at(address, bytes);
                                    }});
  });
}

CUresult cuMemFreeAsync(CUdeviceptr memory, CUstream handle) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    if (memory == 0) return CUDA_SUCCESS;
    const std::shared_ptr<Stream> stream = find_stream(driver, context, handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    Device& device = *context.device;
    const auto found = device.allocations.find(memory);
    if (found == device.allocations.end() || found->second.is_freed) {
      record_fault(driver, "cuMemFreeAsync: not a live allocation");
      return CUDA_ERROR_INVALID_VALUE;
    }
    found->second.is_freed = true;
    return submit(driver, *stream,
                  {.name = "cuMemFreeAsync",
                   .run = [memory](Device& owner) { memory_of(owner).free(memory); },
                   .finish = [memory](Device& owner) { forget(owner, memory); }});
  });
}

CUresult cuMemHostAlloc(void** out, size_t bytes, unsigned int flags) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    if (!out || bytes == 0 || flags > 7) return CUDA_ERROR_INVALID_VALUE;
    const CUresult refused = refuse_in_capture(driver);
    if (refused != CUDA_SUCCESS) return refused;
    void* memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!memory) return CUDA_ERROR_OUT_OF_MEMORY;
    std::memset(memory, 0xcd, bytes);  // nothing promises zeros
    driver.host_ranges[reinterpret_cast<uintptr_t>(memory)] = {&context, bytes, false};
    *out = memory;
    return CUDA_SUCCESS;
  });
}

namespace {

CUresult release_host(void* memory, bool is_registered, CUresult missing) {
  return in_context([&](Driver& driver, Context& context, Lock& lock) -> CUresult {
    const CUresult refused = refuse_in_capture(driver);
    if (refused != CUDA_SUCCESS) return refused;
    auto found = driver.host_ranges.find(reinterpret_cast<uintptr_t>(memory));
    if (found == driver.host_ranges.end() || found->second.is_registered != is_registered) return missing;
    wait_for_context(driver, context, lock);  // copies may still be reading it
    found = driver.host_ranges.find(reinterpret_cast<uintptr_t>(memory));
    if (found == driver.host_ranges.end()) return missing;
    driver.host_ranges.erase(found);
    if (!is_registered) std::free(memory);
    return context.error;
  });
}

}  // namespace

CUresult cuMemFreeHost(void* memory) { return release_host(memory, false, CUDA_ERROR_INVALID_VALUE); }
CUresult cuMemHostUnregister(void* memory) {
  return release_host(memory, true, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

CUresult cuMemHostRegister_v2(void* memory, size_t bytes, unsigned int) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    if (!memory || bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    if (host_kind(driver, memory, bytes) != HostKind::pageable)
      return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    driver.host_ranges[reinterpret_cast<uintptr_t>(memory)] = {&context, bytes, true};
    return CUDA_SUCCESS;
  });
}

CUresult cuMemGetInfo_v2(size_t* free_bytes, size_t* total_bytes) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    if (!free_bytes || !total_bytes) return CUDA_ERROR_INVALID_VALUE;
    *total_bytes = driver.settings.memory;
    *free_bytes = driver.settings.memory - context.device->used_bytes;
    return CUDA_SUCCESS;
  });
}

}  // namespace bitloom::cuda_emulation
