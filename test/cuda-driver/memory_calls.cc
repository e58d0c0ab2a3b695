// Memory of devices and pinned memory of the host; copies and fills.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "calls.h"
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

// Whether the range lies in one allocation. Variables of modules are not among them.
bool is_device_range(Driver& driver, const Device& device, const char* call, CUdeviceptr address,
                     size_t bytes) {
  const auto after = device.allocations.upper_bound(address);
  const auto found = after == device.allocations.begin() ? device.allocations.end() : std::prev(after);
  if (found != device.allocations.end() && !found->second.is_freed &&
      address - found->first <= found->second.bytes &&
      bytes <= found->second.bytes - (address - found->first)) {
    return true;
  }
  char text[160];
  std::snprintf(text, sizeof text, "%s: %zu bytes at 0x%llx are not within one live allocation", call, bytes,
                address);
  record_fault(driver, text);
  return false;
}

enum class HostKind { pageable, pinned, mixed };

HostKind host_kind(const Driver& driver, const void* memory, size_t bytes) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(memory);
  for (const auto& [base, range] : driver.host_ranges) {
    if (first >= base && first + bytes <= base + range.bytes) return HostKind::pinned;
    if (first < base + range.bytes && base < first + bytes) return HostKind::mixed;
  }
  return HostKind::pageable;
}

ptx::DeviceMemory& memory_of(Device& device) { return device.machine->memory; }

// The stream's work so far is awaited, as the reference says of copies without "Async" that touch pageable
// memory.
void wait_for_stream(Driver& driver, Stream& stream, Lock& lock) { wait_for(driver, stream.last, lock); }

struct Copy {
  const char* call;
  CUstream stream;
  bool is_async;
};

// Runs body(driver, context, stream, lock): the checks that copies and fills share.
template <typename Body>
CUresult on_stream(const Copy& copy, Body&& body) {
  return in_context([&](Driver& driver, Context& context, Lock& lock) {
    if (!copy.is_async) {
      const CUresult refused = refuse_in_capture(driver);
      if (refused != CUDA_SUCCESS) return refused;
    }
    const std::shared_ptr<Stream> stream = find_stream(driver, context, copy.stream);
    if (!stream) return static_cast<CUresult>(CUDA_ERROR_INVALID_HANDLE);
    return static_cast<CUresult>(body(driver, context, *stream, lock));
  });
}

CUresult copy_to_device(const Copy& copy, CUdeviceptr to, const void* from, size_t bytes) {
  return on_stream(copy, [&](Driver& driver, Context& context, Stream& stream, Lock& lock) -> CUresult {
    if (bytes == 0) return CUDA_SUCCESS;
    const HostKind kind = host_kind(driver, from, bytes);
    if (!from || kind == HostKind::mixed || !is_device_range(driver, *context.device, copy.call, to, bytes))
      return CUDA_ERROR_INVALID_VALUE;
    Work work{.name = copy.call, .run = {}, .host_bytes = bytes};
    if (kind == HostKind::pageable && !stream.capture) {  // staged at the call
      if (!copy.is_async) wait_for_stream(driver, stream, lock);
      if (context.error != CUDA_SUCCESS) return context.error;
      const auto staged = std::make_shared<std::vector<uint8_t>>(bytes);
      std::memcpy(staged->data(), from, bytes);
      work.run = [=](Device& device) { memory_of(device).write(to, staged->data(), bytes); };
      return submit(driver, stream, std::move(work));
    }
    if (kind == HostKind::pinned) work.host_source = from;
    work.run = [=](Device& device) { memory_of(device).write(to, from, bytes); };
    TicketPtr ticket;
    const CUresult result = submit(driver, stream, std::move(work), &ticket);
    if (result != CUDA_SUCCESS || copy.is_async) return result;
    wait_for(driver, ticket, lock);
    return context.error;
  });
}

CUresult copy_to_host(const Copy& copy, void* to, CUdeviceptr from, size_t bytes) {
  return on_stream(copy, [&](Driver& driver, Context& context, Stream& stream, Lock& lock) -> CUresult {
    if (bytes == 0) return CUDA_SUCCESS;
    const HostKind kind = host_kind(driver, to, bytes);
    if (!to || kind == HostKind::mixed || !is_device_range(driver, *context.device, copy.call, from, bytes))
      return CUDA_ERROR_INVALID_VALUE;
    Work work{.name = copy.call,
              .run = [=](Device& device) { memory_of(device).read(to, from, bytes); },
              .host_target = kind == HostKind::pinned ? to : nullptr,
              .host_bytes = bytes};
    TicketPtr ticket;
    const CUresult result = submit(driver, stream, std::move(work), &ticket);
    // Into pageable memory even the asynchronous call returns only when the bytes are there.
    if (result != CUDA_SUCCESS || !ticket || (copy.is_async && kind == HostKind::pinned)) return result;
    wait_for(driver, ticket, lock);
    return context.error;
  });
}

CUresult copy_on_device(const Copy& copy, CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return on_stream(copy, [&](Driver& driver, Context& context, Stream& stream, Lock&) -> CUresult {
    if (bytes == 0) return CUDA_SUCCESS;
    const bool overlapping = to < from + bytes && from < to + bytes;
    if (overlapping) record_fault(driver, std::string(copy.call) + ": source and target overlap");
    if (overlapping || !is_device_range(driver, *context.device, copy.call, from, bytes) ||
        !is_device_range(driver, *context.device, copy.call, to, bytes)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    return submit(driver, stream, {.name = copy.call, .run = [=](Device& device) {
                                     memory_of(device).copy(to, from, bytes);
                                   }});
  });
}

CUresult fill(const Copy& copy, CUdeviceptr to, unsigned char value, size_t bytes) {
  return on_stream(copy, [&](Driver& driver, Context& context, Stream& stream, Lock&) -> CUresult {
    if (bytes == 0) return CUDA_SUCCESS;
    if (!is_device_range(driver, *context.device, copy.call, to, bytes)) return CUDA_ERROR_INVALID_VALUE;
    return submit(driver, stream, {.name = copy.call, .run = [=](Device& device) {
                                     memory_of(device).fill(to, value, bytes);
                                   }});
  });
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

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  return copy_to_device({"cuMemcpyHtoD", nullptr, false}, to, from, bytes);
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return copy_to_device({"cuMemcpyHtoDAsync", stream, true}, to, from, bytes);
}
CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  return copy_to_host({"cuMemcpyDtoH", nullptr, false}, to, from, bytes);
}
CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return copy_to_host({"cuMemcpyDtoHAsync", stream, true}, to, from, bytes);
}
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return copy_on_device({"cuMemcpyDtoD", nullptr, false}, to, from, bytes);
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return copy_on_device({"cuMemcpyDtoDAsync", stream, true}, to, from, bytes);
}
CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t bytes) {
  return fill({"cuMemsetD8", nullptr, false}, to, value, bytes);
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
  return fill({"cuMemsetD8Async", stream, true}, to, value, bytes);
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
